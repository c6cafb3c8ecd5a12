"""What is sent of a cluster file's folder, and what never leaves it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.core.cluster_files import FOLDER, FULL, SMALL
from vws.cli.cluster_folder import bundle
from vws.core.clusterfile import read_cluster_file
from vws.core.errors import InvalidRequest
from vws.core.waits import CONTENT_BYTES_MAX
from vws.core.yaml_tree import BYTES_MAX

KEY = SMALL + "data: {key: {from: files/key}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name, content in FOLDER.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    (tmp_path / "secret").write_text("of somebody else")
    return home


def write(folder: Path, text: str) -> Path:
    (folder / "cluster.yaml").write_text(text)
    return folder / "cluster.yaml"


def test_what_is_sent_is_read_the_same_elsewhere(folder):
    sent = bundle(write(folder, FULL), {"workers": "5"})
    assert sent.files == FOLDER
    body = sent.body()
    files = {path: base64.b64decode(content) for path, content in body["files"].items()}
    assert read_cluster_file(body["file"], files.__getitem__, body["parameters"]) == sent.cluster
    assert sent.cluster.groups[1].request.count == 5


def refused(folder: Path, text: str = KEY) -> str:
    with pytest.raises(InvalidRequest) as caught:
        bundle(write(folder, text), {})
    return caught.value.problem


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd"])
def test_links_that_lead_out_are_refused(folder, target):
    (folder / "files/key").unlink()
    (folder / "files/key").symlink_to(target)
    assert "line 5, column 14: files/key cannot be read: it leads out of the cluster file's folder" in refused(folder)


def test_folders_that_lead_out_are_refused(folder):
    (folder / "out").symlink_to(folder.parent)
    assert "it leads out" in refused(folder, KEY.replace("files/key", "out/secret"))


def test_links_within_the_folder_are_followed(folder):
    (folder / "files/key").unlink()
    (folder / "files/key").symlink_to("../scripts/head.sh")
    assert bundle(write(folder, KEY), {}).files == {"files/key": FOLDER["scripts/head.sh"]}


def test_what_is_no_file_is_refused_and_not_waited_for(folder):
    (folder / "files/key").unlink()
    assert "No such file or directory" in refused(folder)
    os.mkfifo(folder / "files/key")
    assert "it is no ordinary file" in refused(folder)
    (folder / "files/key").unlink()
    (folder / "files/key").mkdir()
    assert "files/key cannot be read: Is a directory" in refused(folder)


def test_a_large_file_is_refused_and_not_read_to_its_end(folder):
    with (folder / "files/key").open("wb") as file:
        file.truncate(1 << 40)
    assert f"files/key has more than {CONTENT_BYTES_MAX} bytes" in refused(folder)


def test_a_cluster_file_that_is_none(folder):
    with pytest.raises(FileNotFoundError):
        bundle(folder / "missing.yaml", {})
    path = folder / "cluster.yaml"
    path.write_bytes(b"vws: cluster/1\nname: \xff\n")
    with pytest.raises(InvalidRequest, match="line 2: this is no text in UTF-8"):
        bundle(path, {})
    path.write_bytes(b"#" * (BYTES_MAX + 100))
    with pytest.raises(InvalidRequest, match="the file has more than"):
        bundle(path, {})
