"""A node's cache that fetches one file, in a process of its own: its time and memory are its own. See images.py.

python -m bench.staging SITE CACHE SHA256 SIZE_MIB      -> {"seconds", "peak_mib"}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.processes import Usage
from vws.core.site import ImageFile
from vws.node.images import ImageCache
from vws.node.link import HttpLink, Service

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("site", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sha256")
    parser.add_argument("size_mib", type=int)
    options = parser.parse_args()
    file = ImageFile("disk", options.sha256, options.size_mib * MIB, "raw", options.size_mib)
    print(json.dumps(asyncio.run(_fetch(options.site, options.cache, file))))


async def _fetch(directory: Path, folder: Path, file: ImageFile) -> dict[str, Any]:
    service = Service((directory / "url").read_text().strip(), directory / "ca.crt")
    link = HttpLink(service, "bench", (directory / "admin.token").read_text().strip(), "bench")
    cache = ImageCache(folder)
    cache.open()

    async def fetch(sha256: str, size_bytes: int, target: Path) -> str:
        return await link.fetch(sha256, size_bytes, target, lambda _: None)

    begin = time.perf_counter()
    await cache.ensure([file], fetch, lambda _: None)
    seconds = time.perf_counter() - begin
    await service.close()
    return {"seconds": seconds, "peak_mib": Usage.of(os.getpid()).peak_mib}


if __name__ == "__main__":
    uvloop.install()
    main()
