"""The node's image cache: whole or absent, fetched once, verified, and never a way to the node's own files."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.node.builders import in_loop
from vws.core.caches import CachedFile, FileState
from vws.core.errors import InvalidRequest
from vws.core.site import ImageFile
from vws.node.config import FakeConfig, NodeConfig
from vws.node.images import ImageCache, virtual_size_mib
from vws.ports import HypervisorError, ImageRefused

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
def in_use() -> set[str]:
    return set()


@pytest.fixture
def cache(tmp_path: Path, in_use: set[str]) -> ImageCache:
    cache = ImageCache(tmp_path / "node", in_use=lambda: in_use)
    cache.open()
    return cache


@pytest.fixture
def source() -> Source:
    return Source(os.urandom(5000))


def qcow2(folder: Path, *options: str) -> bytes:
    path = folder / "made.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "8M"], check=True, cwd=folder)
    return path.read_bytes()


async def ensure(cache: ImageCache, source: Source, *kind: str) -> Path:
    file = source.file(*kind)
    await cache.ensure([file], source.fetch, lambda text: None)
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
async def test_a_changed_file_is_refused_once_and_then_fetched_anew(cache, source) -> None:
    path = await ensure(cache, source)
    os.chmod(path, 0o644)
    path.write_bytes(b"something else")
    with pytest.raises(ImageRefused, match="was altered in the node's cache"):
        await ensure(cache, source)
    assert source.fetches == 1
    await ensure(cache, source)
    assert source.fetches == 2
    assert path.read_bytes() == source.data


@in_loop
async def test_what_a_prefetch_finds_altered_is_mended_and_told_also_after_a_restart(cache, source, caplog) -> None:
    path, before = await ensure(cache, source), int(time.time())
    os.chmod(path, 0o644)
    path.write_bytes(b"something else")
    await cache.prefetch(source.file(), source.fetch)
    (told,) = await cache.contents()
    assert told.state is FileState.COMPLETE
    assert before <= told.altered_at <= time.time()
    assert "was altered in the cache after it had been verified" in caplog.text
    again = ImageCache(cache.directory.parent)
    os.utime(path, (1, 1))
    await again.ensure([source.file()], source.fetch, lambda text: None)
    assert [file.altered_at for file in await again.contents()] == [told.altered_at], "hashed again, and no other"


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
        await cache.ensure([file], source.fetch, lambda text: None)
    assert raised.value.final
    assert source.fetches == 2
    assert list(cache.directory.iterdir()) == []


@in_loop
async def test_a_broken_download_is_left_to_be_resumed(cache, source) -> None:
    async def breaks(sha256: str, size_bytes: int, target: Path) -> None:
        target.write_bytes(source.data[:100])
        raise HypervisorError("the service went away")

    with pytest.raises(HypervisorError, match="went away"):
        await cache.ensure([source.file()], breaks, lambda text: None)
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
async def test_room_is_made_by_dropping_what_nobody_uses(cache, source, in_use, monkeypatch) -> None:
    unused, used = Source(os.urandom(100)), Source(os.urandom(100))
    gone, kept = await ensure(cache, unused), await ensure(cache, used)
    usage = shutil.disk_usage(cache.directory)
    just_too_little = 5000 + (64 << 20) - 1
    free = {True: just_too_little, False: 1 << 40}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[gone.exists()]))
    in_use.add(kept.name)
    await ensure(cache, source)
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


# ---------------------------------------------------------------- a limit

MIB = 1 << 20


def sources(count: int, size: int = MIB) -> list[Source]:
    return [Source(os.urandom(size)) for _ in range(count)]


@pytest.fixture
def small(tmp_path: Path, in_use: set[str]) -> ImageCache:
    """Room for three of `sources`."""
    cache = ImageCache(tmp_path / "node", limit_bytes=3 * MIB + MIB // 2, in_use=lambda: in_use)
    cache.open()
    return cache


def here(cache: ImageCache, *all: Source) -> list[bool]:
    return [cache.path(source.file().sha256).exists() for source in all]


def used_at(cache: ImageCache, source: Source, at: float) -> None:
    os.utime(cache.path(source.file().sha256).with_suffix(".json"), (at, at))


@in_loop
async def test_beyond_the_limit_what_is_unused_the_longest_goes_also_after_a_restart(small, in_use) -> None:
    a, b, c, d, e = sources(5)
    for at, source in enumerate((a, b, c)):
        await ensure(small, source)
        used_at(small, source, 1000 + at)
    await ensure(small, a)  # used again, just now
    again = ImageCache(small.directory.parent, limit_bytes=small.limit_bytes, in_use=lambda: in_use)
    again.open()
    await ensure(again, d)
    assert here(again, a, b, c, d) == [True, False, True, True]
    await ensure(again, e)
    assert here(again, a, c, d, e) == [True, False, True, True]
    files = {path.name.split(".")[0] for path in small.directory.iterdir()}
    assert files == {source.file().sha256 for source in (a, d, e)}, "no note without its file"


@in_loop
async def test_what_is_used_ordered_or_on_its_way_stays_and_room_is_asked_for_before_the_transfer(
    small, in_use
) -> None:
    used, ordered, late = sources(3)
    for source in (used, ordered):
        await ensure(small, source)
    in_use.add(used.file().sha256)
    small.expect({ordered.file().sha256}, ())
    coming, arrives = asyncio.Event(), asyncio.Event()

    async def slow(sha256: str, size_bytes: int, target: Path) -> str:
        coming.set()
        await arrives.wait()
        return await late.fetch(sha256, size_bytes, target)

    first = asyncio.create_task(small.ensure([late.file()], slow, lambda text: None))
    await coming.wait()
    (one_too_many,) = sources(1)
    with pytest.raises(HypervisorError, match=r"image cache is full.* were kept; nothing was dropped") as raised:
        await ensure(small, one_too_many)
    assert not raised.value.final
    assert one_too_many.fetches == 0
    arrives.set()
    await first
    assert here(small, used, ordered, late) == [True, True, True]
    in_use.clear()
    await ensure(small, one_too_many)
    assert here(small, used, ordered, late, one_too_many) == [False, True, True, True]


@in_loop
async def test_a_limit_that_was_lowered_is_kept_to_as_far_as_nothing_is_in_use(small, in_use) -> None:
    used, older, newer = sources(3)
    for at, source in enumerate((used, older, newer)):
        await ensure(small, source)
        used_at(small, source, 1000 + at)
    in_use.add(used.file().sha256)
    again = ImageCache(small.directory.parent, limit_bytes=2 * MIB + MIB // 2, in_use=lambda: in_use)
    await again.trim()
    assert here(again, used, older, newer) == [True, False, True]
    again.limit_bytes = MIB // 2
    await again.trim()
    assert here(again, used, older, newer) == [True, False, False]


@in_loop
async def test_what_can_never_fit_is_refused_for_good_and_nothing_is_dropped_for_it(small) -> None:
    kept, disk, base = Source(os.urandom(MIB)), Source(os.urandom(3 * MIB)), Source(os.urandom(3 * MIB))
    await ensure(small, kept)
    chain = [disk.file(), base.file("initrd", "initrd")]
    with pytest.raises(HypervisorError, match=r"never.*takes 6 MiB.*holds 4 MiB.*\[node\] cache") as raised:
        await small.ensure(chain, disk.fetch, lambda text: None)
    assert raised.value.final
    assert (disk.fetches, here(small, kept)) == (0, [True])


@in_loop
async def test_zeros_take_no_room(small) -> None:
    """What is sent counts, not the length."""
    file = ImageFile("kernel", hashlib.sha256(bytes(64 * MIB)).hexdigest(), 64 * MIB, "kernel", data_bytes=4096)

    async def fetch(sha256: str, size_bytes: int, target: Path) -> str:
        with target.open("wb") as made:
            made.truncate(size_bytes)
        return file.sha256

    await small.ensure([file], fetch, lambda text: None)
    (told,) = await small.contents()
    assert (told.size_bytes, told.disk_bytes) == (64 * MIB, 0)


@in_loop
async def test_a_disk_that_runs_full_is_told_gives_the_room_back_and_is_tried_anew(cache, source) -> None:
    async def full(sha256: str, size_bytes: int, target: Path) -> str:
        target.write_bytes(source.data[:3000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(HypervisorError, match="disk is full: no space was left when 3 KiB of the 5 KiB") as raised:
        await cache.ensure([source.file()], full, lambda text: None)
    assert not raised.value.final
    assert list(cache.directory.iterdir()) == []
    path = await ensure(cache, source)
    assert path.read_bytes() == source.data


@in_loop
async def test_a_file_that_is_gone_comes_anew_and_one_that_was_cut_too_once_it_was_told(cache, source) -> None:
    path = await ensure(cache, source)
    os.truncate(path, 100)
    assert [file.state for file in await cache.contents()] == [FileState.CHANGED]
    with pytest.raises(ImageRefused, match="was altered"):
        await ensure(cache, source)
    await ensure(cache, source)
    path.unlink()
    assert await cache.contents() == []
    with pytest.raises(HypervisorError, match="is missing from the node's cache"):
        cache.check([source.file()])
    await ensure(cache, source)
    assert source.fetches == 3
    assert path.read_bytes() == source.data


@in_loop
async def test_who_waits_for_anothers_transfer_is_told_how_far_it_is_and_may_leave(cache, source) -> None:
    coming, arrives = asyncio.Event(), asyncio.Event()

    async def slow(sha256: str, size_bytes: int, target: Path) -> str:
        target.write_bytes(source.data[:2000])
        coming.set()
        await arrives.wait()
        return await source.fetch(sha256, size_bytes, target)

    class Left(Exception): ...

    told: list[str] = []

    def leave(text: str) -> None:
        told.append(text)
        raise Left

    first = asyncio.create_task(cache.ensure([source.file()], slow, lambda text: None))
    await coming.wait()
    with pytest.raises(Left):
        await cache.ensure([source.file()], source.fetch, leave)
    assert told == ["fetching the image's kernel, 40 % of it, for another workspace too"]
    arrives.set()
    await first
    assert source.fetches == 1


# ---------------------------------------------------------------- ahead of need


@in_loop
async def test_a_prefetch_gives_way_to_what_a_workspace_needs_and_goes_on(cache) -> None:
    soon, urgent = sources(2)
    log: list[str] = []
    coming = asyncio.Event()

    async def slow(sha256: str, size_bytes: int, target: Path) -> str:
        log.append("prefetch")
        coming.set()
        if log.count("prefetch") == 1:
            await asyncio.Event().wait()
        return await soon.fetch(sha256, size_bytes, target)

    async def now(sha256: str, size_bytes: int, target: Path) -> str:
        log.append("workspace")
        return await urgent.fetch(sha256, size_bytes, target)

    prefetch = asyncio.create_task(cache.prefetch(soon.file(), slow))
    await coming.wait()
    await cache.ensure([urgent.file()], now, lambda text: None)
    await prefetch
    assert log == ["prefetch", "workspace", "prefetch"]
    assert here(cache, soon, urgent) == [True, True]


@in_loop
async def test_a_workspace_takes_over_the_prefetch_of_what_it_needs(cache, source) -> None:
    coming = asyncio.Event()

    async def never(sha256: str, size_bytes: int, target: Path) -> str:
        coming.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    prefetch = asyncio.create_task(cache.prefetch(source.file(), never))
    await coming.wait()
    await ensure(cache, source)
    await prefetch
    assert source.fetches == 1


@in_loop
async def test_a_prefetch_takes_no_room_from_what_is_wanted_but_a_workspace_does_the_latest_first(small) -> None:
    soonest, later, latest, another, urgent = sources(5)
    wanted = [source.file() for source in (soonest, later, latest, another)]
    small.expect((), wanted)
    for source in (soonest, later, latest):
        await small.prefetch(source.file(), source.fetch)
    with pytest.raises(HypervisorError, match="cache is full"):
        await small.prefetch(another.file(), another.fetch)
    await ensure(small, urgent)
    assert here(small, soonest, later, latest, urgent) == [True, True, False, True]


@in_loop
async def test_clearing_drops_what_nobody_uses_and_says_what_it_kept_and_why(small, in_use) -> None:
    used, wanted, idle = sources(3)
    for source in (used, wanted, idle):
        await ensure(small, source)
    in_use.add(used.file().sha256)
    small.expect((), [wanted.file()])
    cleared = await small.clear("cac-1", None)
    assert (cleared.id, cleared.dropped) == ("cac-1", (idle.file().sha256,))
    assert cleared.freed_bytes >= MIB
    assert {kept.sha256: kept.reason for kept in cleared.kept} == {
        used.file().sha256: "a workspace uses it",
        wanted.file().sha256: "a lease that is planned here, or an administrator, wants it here",
    }
    assert here(small, used, wanted, idle) == [True, True, False]
    one = await small.clear("cac-2", [used.file().sha256])
    assert (one.dropped, len(one.kept)) == ((), 1)


@in_loop
async def test_what_is_told_of_a_file_is_what_is_known_without_reading_it(cache, source) -> None:
    await ensure(cache, source, "initrd", "initrd")
    partial = cache.directory / f"{'b' * 64}.part"
    partial.write_bytes(b"half")
    whole = next(file for file in await cache.contents() if file.sha256 != "b" * 64)
    assert (whole.state, whole.role, whole.size_bytes) == (FileState.COMPLETE, "initrd", 5000)
    assert whole.used_at > 1_700_000_000
    half = next(file for file in await cache.contents() if file.sha256 == "b" * 64)
    assert isinstance(half, CachedFile)
    assert (half.state, half.have_bytes) == (FileState.PARTIAL, 4)


@pytest.mark.parametrize("text", ["20", "1MiB", "20GB", "much", "-5GiB", "99999999TiB"])
def test_a_limit_that_is_none_is_told_by_its_name(text) -> None:
    with pytest.raises(InvalidRequest) as raised:
        NodeConfig(cache=text).check()
    assert raised.value.field == "node.cache"


def test_limits_are_read_and_have_defaults(tmp_path) -> None:
    NodeConfig(cache="20GiB").check()
    with pytest.raises(InvalidRequest, match="fetch_limit_mbit"):
        NodeConfig(fetch_limit_mbit=-1).check()
    assert FakeConfig(disk_mib=4096).cache_bytes == 1024 * MIB
    assert FakeConfig(cache="2GiB").cache_bytes == 2048 * MIB
    assert 0 < ImageCache(tmp_path / "none" / "yet").limit_bytes < shutil.disk_usage(tmp_path).total
