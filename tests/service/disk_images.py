"""Disk images made for tests, by qemu-img, some then altered byte by byte to what no well-meaning program writes."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SIZE_BYTES = 3 << 20


def qemu_img(*arguments):
    return subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True).stdout


def raw_disk(path: Path, size_bytes: int = SIZE_BYTES) -> Path:
    """A disk with a boot sector, some bytes and much nothing."""
    with path.open("wb") as file:
        file.write(b"\xeb\x3c" + bytes(508) + b"\x55\xaa")
        file.seek(1 << 20)
        file.write(bytes(range(256)) * 512)
        file.truncate(size_bytes)
    return path


def disk(path: Path, kind: str, *options: str, size_bytes: int = SIZE_BYTES) -> Path:
    """The same disk in any format."""
    raw = raw_disk(path.with_suffix(".as-raw"), size_bytes)
    qemu_img("convert", "-f", "raw", "-O", kind, *options, raw, path)
    raw.unlink()
    return path


def altered(path: Path, *changes: tuple[int, bytes]) -> Path:
    """Negative offsets count from the end."""
    data = bytearray(path.read_bytes())
    for offset, new in changes:
        begin = offset if offset >= 0 else len(data) + offset
        data[begin : begin + len(new)] = new
    path.write_bytes(data)
    return path


def same_content(first: Path, kind: str, second: Path, other_kind: str) -> bool:
    done = subprocess.run(
        ["qemu-img", "compare", "-f", kind, "-F", other_kind, str(first), str(second)], capture_output=True, check=False
    )
    return done.returncode == 0


def repeating_qcow2(path: Path, size_bytes: int) -> Path:
    """A qcow2 of which every cluster is one and the same, and which says so truly in its reference counts.

    No copy-on-write flag is set, as if they were of snapshots: qemu-img finds nothing wrong with it. A few hundred
    kilobytes that read as `size_bytes`, which must be at most 512 MiB times a few.
    """
    bits, cluster = 16, 1 << 16
    clusters = size_bytes >> bits
    tables = -(-clusters // (cluster // 8))
    l1_at, refcounts_at, block_at, l2_at = cluster, 2 * cluster, 3 * cluster, 4 * cluster
    data_at = l2_at + tables * cluster
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, bits, size_bytes, 0, tables, l1_at, refcounts_at, 1, 0, 0
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8)
    image = bytearray(data_at + cluster)
    image[: len(header)] = header
    for table in range(tables):
        struct.pack_into(">Q", image, l1_at + 8 * table, (1 << 63) | (l2_at + table * cluster))
    struct.pack_into(">Q", image, refcounts_at, block_at)
    counts = [1] * (4 + tables) + [clusters]
    struct.pack_into(f">{len(counts)}H", image, block_at, *counts)
    struct.pack_into(f">{clusters}Q", image, l2_at, *([data_at] * clusters))
    image[data_at:] = b"bomb" * (cluster // 4)
    path.write_bytes(image)
    return path
