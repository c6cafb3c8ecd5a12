"""A small ext4 file system in a qcow2 image, the same bytes for the same tree.

mke2fs can fill a file system from a folder, but copies that folder's owners and times. So the file system is made
empty, with its ids fixed and the libraries' clock stopped (E2FSPROGS_FAKE_TIME), and debugfs writes the tree into it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vws.guest.cpio import Tree, with_folders
from vws.guest.debs import BuildError, run

UUID = "7677732d-6461-7461-2d64-69736b000001"
FIXED_TIME = "1"  # 0 would mean: the real one
LABEL = "vws-data"


def make_qcow2(tree: Tree, target: Path, size_mib: int) -> None:
    """Write `target`, a compressed qcow2 of `size_mib` with the tree in it, owned by root.

    Raises BuildError when the tree does not fit or a tool fails.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        raw = Path(folder) / "disk.raw"
        with raw.open("wb") as stream:
            stream.truncate(size_mib << 20)
        _format(raw)
        _fill(raw, tree, Path(folder))
        run(["e2fsck", "-f", "-n", str(raw)], env=_environment())
        run(["qemu-img", "convert", "-c", "-m", "1", "-f", "raw", "-O", "qcow2", str(raw), str(target)])


def _format(raw: Path) -> None:
    # 4 KiB blocks and few inodes, as the file system is to grow; nothing left for the guest to initialise.
    layout = ["-b", "4096", "-i", "16384", "-I", "256", "-m", "0", "-J", "size=8"]
    fixed = ["-U", UUID, "-L", LABEL, "-E", f"hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,nodiscard"]
    run(["mke2fs", "-q", "-F", "-t", "ext4", *layout, *fixed, str(raw)], env=_environment())


def _fill(raw: Path, tree: Tree, folder: Path) -> None:
    commands = folder / "commands"
    lines: list[str] = []
    for number, (path, entry) in enumerate(with_folders(tree).items()):
        content = folder / str(number)
        if entry.is_link:
            lines.append(f"symlink /{path} {entry.data.decode()}")
            continue
        if entry.is_folder:
            lines.append(f"mkdir /{path}")
        else:
            content.write_bytes(entry.data)
            lines.append(f"write {content} /{path}")
        lines.append(f"set_inode_field /{path} mode 0{entry.mode:o}")
    commands.write_text("".join(f"{line}\n" for line in lines))
    said = run(["debugfs", "-w", "-f", str(commands), str(raw)], env=_environment(), with_stderr=True)
    wrong = [line for line in said.splitlines() if not line.startswith(("debugfs", "Allocated inode:"))]
    if wrong:
        raise BuildError(f"the disk could not be filled: {wrong[0]}")


def _environment() -> dict[str, str]:
    return {**os.environ, "E2FSPROGS_FAKE_TIME": FIXED_TIME, "MKE2FS_CONFIG": "/dev/null", "LC_ALL": "C", "TZ": "UTC"}
