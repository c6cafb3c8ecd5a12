"""Saved memory at rest: what was written comes back, and nothing else ever does."""

from __future__ import annotations

from pathlib import Path

import pytest

from vws.node.sealed_memory import END, MAGIC, PIECE_BYTES, SALT_BYTES, Sealing, is_sealed, is_whole, opened
from vws.ports import HypervisorError

KEY = "a passphrase"


def sealed(path: Path, data: bytes, chunk: int = 700_001) -> Path:
    sealing = Sealing(path, KEY)
    for at in range(0, len(data), chunk):
        sealing.write(data[at : at + chunk])
    sealing.finish()
    sealing.close()
    return path


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_what_was_written_comes_back(tmp_path, size):
    data = bytes(i * 7 % 251 for i in range(min(size, 4096))) * (size // 4096 + 1)
    path = sealed(tmp_path / "memory", data[:size])
    assert b"".join(opened(path, KEY)) == data[:size]
    assert is_whole(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < size + 4096, "what was reserved is given back"


def test_nothing_of_it_is_readable_and_no_two_files_are_alike(tmp_path):
    data = b"the guest's own secret" * 1000
    first, second = sealed(tmp_path / "1", data).read_bytes(), sealed(tmp_path / "2", data).read_bytes()
    assert b"secret" not in first
    assert first != second


def pieces_of(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """(head, the pieces with their lengths, end)"""
    at, found = len(MAGIC) + SALT_BYTES, []
    head, end = data[:at], len(data) - len(END)
    while at < end:
        length = 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at : at + length])
        at += length
    return head, found, data[end:]


def changes(data: bytes) -> dict[str, bytes]:
    head, (first, second, third), end = pieces_of(data)
    return {
        "a bit": data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
        "the salt": data[: len(MAGIC)] + bytes(SALT_BYTES) + data[len(MAGIC) + SALT_BYTES :],
        "a piece left out": head + first + third + end,
        "pieces moved": head + second + first + third + end,
        "the last cut off": head + first + second + end,
        "one more": head + first + second + third + third + end,
        "cut short": data[: len(data) // 2],
        "nothing": b"",
        "in the clear": b"LibvirtQemudSave" + data,
        "a length": head + b"\xff\xff\xff\xff" + data[len(head) + 4 :],
    }


@pytest.mark.parametrize(
    "change", list(changes(MAGIC + bytes(SALT_BYTES) + (bytes(2) + b"\4\0" + bytes(1024)) * 3 + END))
)
def test_whatever_is_changed_is_noticed_before_it_is_believed(tmp_path, change):
    path = sealed(tmp_path / "memory", bytes(2 * PIECE_BYTES + 1000))
    path.write_bytes(changes(path.read_bytes())[change])
    with pytest.raises(HypervisorError, match="not as it was saved") as error:
        list(opened(path, KEY))
    assert error.value.final


def test_another_key_opens_nothing(tmp_path):
    path = sealed(tmp_path / "memory", b"data")
    with pytest.raises(HypervisorError, match="its key is another"):
        list(opened(path, "another"))


def test_a_file_is_whole_only_once_it_was_finished(tmp_path):
    path = tmp_path / "memory"
    sealing = Sealing(path, KEY)
    sealing.write(bytes(3 * PIECE_BYTES))
    assert is_sealed(path)
    assert not is_whole(path)
    sealing.finish()
    assert is_whole(path)
    sealing.close()
    assert not is_whole(tmp_path / "none")
