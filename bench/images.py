"""Images on their way to a node: what its first staging takes, against the simplest that could do it.

The image is 2 GiB, half of it zeros, in chunks of 1 to 64 MiB. A service serves it over TLS; a node's own cache
fetches, verifies and keeps it, as before a boot. Beside it, in the same run and in turn: `curl` of the same file and
then `sha256sum` of what came, with all bytes sent, and with the frames that leave zeros out (which curl cannot put
together: the sum is of a complete copy then). The promise is against the faster of the two.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Number, Section, median, shown, spread
from bench.sites import BenchSite, fake_site
from vws.config import SiteDirectory

MIB = 1 << 20
RATIO_MAX = 1.2
MEMORY_MIB_MAX = 100


def run(quick: bool) -> Section:
    size_mib, times = (64, 1) if quick else (2048, 3)
    with fake_site(1) as site:
        folder = site.path.parent / "images"
        folder.mkdir()
        image = folder / "disk.raw"
        sha256 = _make(image, size_mib)
        _import(site, image)
        took: dict[str, list[float]] = {"node": [], "curl, all bytes": [], "curl, frames": []}
        peaks = []
        for _ in range(times):
            seconds, peak_mib = _stage(site, folder, sha256, size_mib)
            took["node"].append(seconds)
            peaks.append(peak_mib)
            took["curl, all bytes"].append(_curl(site, folder, sha256, image, ""))
            took["curl, frames"].append(_curl(site, folder, sha256, image, "?holes=skip"))
    return Section("images", "staging an image", _how(size_mib, times), tuple(_numbers(took, peaks)))


def _how(size_mib: int, times: int) -> str:
    return (
        f"An image of {size_mib} MiB, half zeros, from a service to a node's cache on one machine, over TLS; "
        f"`curl` and `sha256sum` beside it in turn. Medians of {times} turns."
    )


def _numbers(took: dict[str, list[float]], peaks: list[float]) -> Iterator[Number]:
    node = median(took["node"])
    rivals = {what: median(seconds) for what, seconds in took.items() if what != "node"}
    best = min(rivals, key=lambda what: rivals[what])
    beside = f"{shown(node)} s; {best} and sha256sum: {shown(rivals[best])} s"
    yield Number("first staging, of curl and sha256sum", node / rivals[best], "×", RATIO_MAX, beside)
    yield Number("memory of a node that stages, at most", max(peaks), "MiB", MEMORY_MIB_MAX)
    for what, seconds in took.items():
        yield Number(f"seconds: {what}", median(seconds), "s", None, spread(seconds, "s"))


def _make(path: Path, size_mib: int) -> str:
    """A disk of chunks of data and of zeros, the same each time; returns its sha256."""
    chance, digest = random.Random(5), hashlib.sha256()
    with path.open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa" + bytes(MIB - 512))
        filled = True
        while file.tell() < size_mib * MIB:
            length = min(chance.randrange(1, 65) * MIB, size_mib * MIB - file.tell())
            file.write(os.urandom(length) if filled else bytes(length))
            filled = not filled
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest()


def _import(site: BenchSite, image: Path) -> None:
    from vws.client import Client

    with Client.from_dir(site.path) as client:
        client.upload_image(image, "bench")


def _stage(site: BenchSite, folder: Path, sha256: str, size_mib: int) -> tuple[float, float]:
    """(seconds, peak MiB) of a process that does as a node does, started for it alone."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "bench.staging", str(site.path), str(cache), sha256, str(size_mib)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    said = json.loads(done.stdout)
    shutil.rmtree(cache)
    return said["seconds"], said["peak_mib"]


def _curl(site: BenchSite, folder: Path, sha256: str, image: Path, query: str) -> float:
    directory, target = SiteDirectory(site.path), folder / "curled"
    url = f"{directory.url.read_text().strip()}/v1/blobs/{sha256}{query}"
    header = folder / "header"
    header.touch(0o600)
    header.write_text(f"Authorization: Bearer {directory.admin_token.read_text().strip()}\n")
    begin = time.perf_counter()
    fetch = ["curl", "-sS", "--fail", "--cacert", str(directory.ca), "-H", f"@{header}", "-o", str(target), url]
    subprocess.run(fetch, check=True)
    summed = subprocess.run(["sha256sum", str(image if query else target)], capture_output=True, check=True, text=True)
    seconds = time.perf_counter() - begin
    assert summed.stdout.startswith(sha256)
    target.unlink()
    return seconds
