"""A tree that programs can be run in, without a build: this machine's own /usr, which they cannot change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vws.factory.log import Log
from vws.factory.sandbox import Sandbox

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bwrap") is None, reason="a sandbox takes root and bubblewrap"
)


class Borrowed(Sandbox):
    """With this machine's programs."""

    def run(self, arguments: Sequence[str], **options: Any) -> None:
        options["reads"] = {"/usr": Path("/usr"), **(options.get("reads") or {})}
        super().run(arguments, **options)


@pytest.fixture
def box(tmp_path) -> Sandbox:
    tree = tmp_path / "tree"
    for name in ("usr", "etc", "root", "home", "var/log"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/shadow").write_text("root:*:1::::::\n")
    return Borrowed(tree, Log(tmp_path / "log", lambda at_s, step: None), 1_700_000_000)
