"""Simulated guests: what an agent says and hears, over TLS connections of its own, a thousand in one loop.

They check what they hear (is everybody in the list, did the document end?) and keep nothing of it, so that what is
measured is the service. They share the machine with it all the same: half of the time that is told is theirs.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

WAIT_S = 120


def key_of(number: int) -> str:
    """An ssh public key that is no other's, and compresses as badly as a real one."""
    body = hashlib.sha256(str(number).encode()).digest()
    return "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + body).decode()


@dataclass
class Guest:
    """One machine. bytes_heard: of all answers, as they came over the wire (without TLS)."""

    url: str
    trust: ssl.SSLContext
    number: int
    name: str
    secret: str
    version: int = 0
    members: int = 0
    state: str = ""
    bytes_heard: int = 0
    heard_at: float = 0.0
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    async def join(self) -> None:
        parts = urlsplit(self.url)
        self._streams = await asyncio.open_connection(parts.hostname, parts.port, ssl=self.trust)
        hashed = hashlib.sha256(self.token.encode()).hexdigest()
        await self._call("POST", "join", f"token_sha256={hashed}".encode(), f"Secret {self.secret}")

    async def report(self, address: str = "") -> None:
        address = address or f"10.{self.number >> 16}.{self.number >> 8 & 255}.{self.number & 255}"
        lines = [f"nic private {address}", f"host-key {key_of(self.number)}", f"user-key {key_of(-self.number - 1)}"]
        await self._call("PUT", "identity", "\n".join(lines).encode())

    async def hear(self, wait_s: int = 0) -> bool:
        """Ask once for what is new; whether there was anything."""
        text = await self._call("GET", f"document?since={self.version}&wait={wait_s}")
        if not text:
            return False
        if not text.endswith(b"\nend\n"):
            raise RuntimeError(f"{self.name}: the document was cut off")
        _, _, version, state = text.partition(b"\n")[0].decode().split("\t")
        self.version, self.state, self.heard_at = int(version), state, time.perf_counter()
        self.members += text.count(b"\nmember\tmember\t")
        return True

    async def hear_of(self, members: int) -> None:
        """Until that many were told of."""
        while self.members < members:
            await self.hear(WAIT_S)

    async def close(self) -> None:
        if self._streams:
            self._streams[1].close()

    async def _call(self, method: str, path: str, body: bytes = b"", authorization: str = "") -> bytes:
        assert self._streams
        reader, writer = self._streams
        head = (
            f"{method} /context/v1/{path} HTTP/1.1\r\nHost: site\r\nAccept-Encoding: gzip\r\n"
            f"Authorization: {authorization or 'Bearer ' + self.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status, headers = _read_head(answer)
        found = await reader.readexactly(int(headers.get("content-length", "0")))
        self.bytes_heard += len(answer) + len(found)
        if status >= 300:
            raise RuntimeError(f"{self.name}: {method} {path}: {status} {found.decode()}")
        return gzip.decompress(found) if headers.get("content-encoding") == "gzip" else found


def _read_head(answer: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = answer.decode().rstrip().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}


async def all_of(guests: list[Guest], do: str, *arguments: int, at_once: int = 100) -> None:
    """The same for all of them, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(guest: Guest) -> None:
        async with slots:
            await getattr(guest, do)(*arguments)

    await asyncio.gather(*map(one, guests))
