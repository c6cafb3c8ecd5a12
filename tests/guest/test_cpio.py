import shutil
import subprocess

import pytest

from vws.guest.cpio import archive, file, folder, link, with_folders

TREE = {
    "init": file("#!/bin/sh\n", 0o755),
    "etc/deep/name": file(b"\0binary"),
    "bin/sh": link("busybox"),
    "root": folder(0o700),
}


def test_parents_come_before_what_is_in_them():
    paths = list(with_folders(TREE))
    assert paths == ["bin", "bin/sh", "etc", "etc/deep", "etc/deep/name", "init", "root"]


def test_a_named_folder_keeps_its_mode():
    tree = with_folders({"root/.ssh": folder(0o700), "root": folder(0o700)})
    assert tree["root"].mode & 0o777 == 0o700


def test_the_order_of_the_tree_does_not_matter():
    assert archive(TREE) == archive(dict(reversed(TREE.items())))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio to read it with")
def test_another_program_reads_the_archive(tmp_path):
    done = subprocess.run(
        ["cpio", "-i", "-v", "-m"], input=archive(TREE), cwd=tmp_path, capture_output=True, check=True
    )
    assert b"init" in done.stderr
    assert (tmp_path / "init").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "etc/deep/name").read_bytes() == b"\0binary"
    assert (tmp_path / "bin/sh").readlink().name == "busybox"
    assert (tmp_path / "init").stat().st_mtime == 0
