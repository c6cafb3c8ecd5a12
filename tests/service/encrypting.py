"""Encrypted disks that are made once for all tests that want the same.

For each disk QEMU measures how fast this machine turns passphrases into keys, which takes it two seconds. So here the
passphrases of a test are its own first, second and so on, and what has the same content under the same passphrase is
a copy. tests/frontends/test_encryption.py has nothing of this.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from vws.service import conversion


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("encrypted")


@pytest.fixture(autouse=True)
def encrypted_once(made_once, monkeypatch) -> None:
    numbers = itertools.count(1)
    monkeypatch.setattr("vws.service.images.new_passphrase", lambda: f"the-passphrase-of-number-{next(numbers)}")
    monkeypatch.setattr(conversion, "convert", partial(_convert, conversion.convert, made_once))


def _convert(
    convert: Callable[..., None], made: Path, source: Path, kind: str, target: Path, into: str, bytes_max: int,
    beneath: Sequence[tuple[Path, str]] = (), passphrase: str = "",
) -> None:  # fmt: skip
    if not passphrase:
        convert(source, kind, target, into, bytes_max, beneath)
        return
    files = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {its}" for path, its in [(source, kind), *beneath]]
    same = made / hashlib.sha256(" ".join([*files, into, passphrase]).encode()).hexdigest()
    if not same.exists():
        convert(source, kind, same, into, bytes_max, beneath, passphrase)
    shutil.copyfile(same, target)
