"""The node's image cache: whole or absent, fetched once, verified, and never a way to the node's own files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node.builders import in_loop
from vws.core.site import ImageFile
from vws.node.images import ImageCache, virtual_size_mib
from vws.ports import HypervisorError

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


class Source:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fetches = 0
        self.first: bytes | None = None

    async def fetch(self, sha256: str, size_bytes: int, target: Path) -> str:
        self.fetches += 1
        await asyncio.sleep(0.01)
        target.write_bytes(self.first if self.first is not None and self.fetches == 1 else self.data)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def file(self, role: str = "kernel", format: str = "kernel") -> ImageFile:
        return ImageFile(role, hashlib.sha256(self.data).hexdigest(), len(self.data), format)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    cache = ImageCache(tmp_path / "node")
    cache.directory.mkdir(parents=True)
    return cache


@pytest.fixture
def source() -> Source:
    return Source(os.urandom(5000))


def qcow2(folder: Path, *options: str) -> bytes:
    path = folder / "made.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "8M"], check=True, cwd=folder)
    return path.read_bytes()


async def ensure(cache: ImageCache, source: Source, *kind: str, in_use: Callable[[], set[str]] = set) -> Path:
    file = source.file(*kind)
    await cache.ensure([file], source.fetch, lambda text: None, in_use)
    return cache.path(file.sha256)


@in_loop
async def test_a_file_is_fetched_once_and_read_only(cache, source) -> None:
    paths = await asyncio.gather(*(ensure(cache, source) for _ in range(5)))
    assert source.fetches == 1
    assert paths[0].read_bytes() == source.data
    assert paths[0].stat().st_mode & 0o777 == 0o444
    assert not list(cache.directory.glob("*.part"))


@in_loop
async def test_an_untouched_file_is_not_hashed_again(cache, source, monkeypatch) -> None:
    await ensure(cache, source)
    monkeypatch.setattr("vws.node.images._sha256", lambda path: pytest.fail("hashed again"))
    await ensure(ImageCache(cache.directory.parent), source)
    assert source.fetches == 1


@in_loop
async def test_a_touched_file_is_hashed_again_and_kept(cache, source) -> None:
    path = await ensure(cache, source)
    os.utime(path, (1, 1))
    await ensure(cache, source)
    assert source.fetches == 1


@in_loop
async def test_a_changed_file_is_fetched_again(cache, source) -> None:
    path = await ensure(cache, source)
    os.chmod(path, 0o644)
    path.write_bytes(b"something else")
    await ensure(cache, source)
    assert source.fetches == 2
    assert path.read_bytes() == source.data


@in_loop
async def test_a_boot_from_a_changed_file_is_refused(cache, source) -> None:
    path = await ensure(cache, source)
    cache.check([source.file()])
    os.chmod(path, 0o644)
    path.write_bytes(b"something else")
    with pytest.raises(HypervisorError, match="was altered in the node's cache"):
        cache.check([source.file()])
    assert not path.exists()


@in_loop
async def test_a_file_that_arrives_wrong_is_fetched_once_more(cache, source) -> None:
    source.first = b"broken on its way"
    path = await ensure(cache, source)
    assert source.fetches == 2
    assert path.read_bytes() == source.data


@in_loop
async def test_a_file_that_stays_wrong_is_a_final_error_and_leaves_nothing(cache, source) -> None:
    file = source.file()
    source.data = b"another file"
    with pytest.raises(HypervisorError, match="corrupt") as raised:
        await cache.ensure([file], source.fetch, lambda text: None, set)
    assert raised.value.final
    assert source.fetches == 2
    assert list(cache.directory.iterdir()) == []


@in_loop
async def test_a_broken_download_is_left_to_be_resumed(cache, source) -> None:
    async def breaks(sha256: str, size_bytes: int, target: Path) -> None:
        target.write_bytes(source.data[:100])
        raise HypervisorError("the service went away")

    with pytest.raises(HypervisorError, match="went away"):
        await cache.ensure([source.file()], breaks, lambda text: None, set)
    assert [path.name for path in cache.directory.iterdir()] == [f"{source.file().sha256}.part"]


@in_loop
async def test_a_sound_disk_is_taken(cache, tmp_path) -> None:
    source = Source(qcow2(tmp_path))
    path = await ensure(cache, source, "disk", "qcow2")
    assert virtual_size_mib(path.read_bytes()[:104], path.stat().st_size, "qcow2") == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-b", "/etc/passwd", "-F", "raw", "-u"), "has a backing file"),
        (("-o", "data_file=secret.raw,data_file_raw=on"), "data in another file"),
    ],
)
@in_loop
async def test_a_disk_that_refers_to_another_file_is_refused_for_good(cache, tmp_path, options, said) -> None:
    source = Source(qcow2(tmp_path, *options))
    with pytest.raises(HypervisorError, match=said) as raised:
        await ensure(cache, source, "disk", "qcow2")
    assert raised.value.final
    assert list(cache.directory.iterdir()) == []


@in_loop
async def test_what_is_no_qcow2_is_refused_for_good(cache, source) -> None:
    for data in (source.data, b"QFI\xfb" + source.data):
        source.data = data
        with pytest.raises(HypervisorError) as raised:
            await ensure(cache, source, "disk", "qcow2")
        assert raised.value.final


@in_loop
async def test_a_qcow2_header_in_a_raw_disk_is_just_bytes(cache, tmp_path) -> None:
    source = Source(qcow2(tmp_path, "-b", "/etc/passwd", "-F", "raw", "-u"))
    path = await ensure(cache, source, "disk", "raw")
    assert virtual_size_mib(path.read_bytes()[:104], 3 << 20, "raw") == 3


@in_loop
async def test_room_is_made_by_dropping_what_nobody_uses(cache, source, monkeypatch) -> None:
    unused, used = Source(os.urandom(100)), Source(os.urandom(100))
    gone, kept = await ensure(cache, unused), await ensure(cache, used)
    usage = shutil.disk_usage(cache.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0 if gone.exists() else 1 << 40))
    await ensure(cache, source, in_use=lambda: {kept.name})
    assert not gone.exists()
    assert not gone.with_name(f"{gone.name}.json").exists()
    assert kept.exists()


@in_loop
async def test_a_full_disk_is_told_before_anything_is_fetched(cache, source, monkeypatch) -> None:
    usage = shutil.disk_usage(cache.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(HypervisorError, match="disk is full") as raised:
        await ensure(cache, source)
    assert not raised.value.final
    assert source.fetches == 0
