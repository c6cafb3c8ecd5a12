"""The guests' protocol as text: what they send, read strictly; what they are told, gzipped where that pays.

A document consists of one member's own lines and of pieces that many have in common. Each piece is compressed once:
deflate blocks that end on a byte and refer to nothing before them may stand behind one another in any order, so a
thousand gzipped documents of 200 KiB cost one compression and a thousand checksums.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from vws.core.context import Identity, Nic, Ran, Side
from vws.core.context_document import Document, Piece
from vws.core.errors import InvalidRequest, TooLarge, VwsError
from vws.core.saying import LOG_BYTES_MAX, check_hook
from vws.frontends.faults import fault_of, shorten

GZIP_BYTES_MIN = 1024
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_NO_MORE = b"\x03\x00"  # an empty last block
_LEVEL = 6


# ---------------------------------------------------------------- what is said to guests


class Packer:
    """Documents as gzip (RFC 1952); for one thread."""

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Piece, bytes] = WeakKeyDictionary()

    def pack(self, document: Document) -> bytes:
        parts, check, length = [_GZIP_HEAD], 0, 0
        for text, packed in self._blocks(document):
            parts.append(packed)
            check = zlib.crc32(text, check)
            length += len(text)
        return b"".join((*parts, _NO_MORE, struct.pack("<II", check, length & 0xFFFFFFFF)))

    def _blocks(self, document: Document) -> list[tuple[bytes, bytes]]:
        shared = [(piece.text, self._of(piece)) for piece in document.shared]
        return [(document.head, _deflated(document.head)), *shared, (document.tail, _deflated(document.tail))]

    def _of(self, piece: Piece) -> bytes:
        packed = self._packed.get(piece)
        if packed is None:
            packed = self._packed[piece] = _deflated(piece.text)
        return packed


def _deflated(text: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


def size_bytes(document: Document) -> int:
    return len(document.head) + sum(len(piece.text) for piece in document.shared) + len(document.tail)


def error_text(error: VwsError) -> tuple[int, str]:
    """(HTTP status, one line)"""
    fault = fault_of(error)
    said = fault.detail + (f" ({fault.possible})" if fault.possible else "")
    return fault.status, f"error {fault.code} {shorten(' '.join(said.split()), 500)}\n"


# ---------------------------------------------------------------- what guests say


def read_identity(body: bytes) -> Identity:
    """Lines `nic NETWORK ADDRESS [MAC]`, `name HOSTNAME`, `host-key KEY`, `user-key KEY`."""
    nics: list[Nic] = []
    said: dict[str, list[str]] = {"name": [], "host-key": [], "user-key": []}
    for number, line in enumerate(_text(body).splitlines(), 1):
        word, _, rest = line.strip().partition("\t" if "\t" in line else " ")
        rest = rest.strip()
        if word == "nic" and 2 <= len(rest.split()) <= 3:
            nics.append(Nic(*rest.split()))
        elif word in said and rest:
            said[word].append(rest)
        elif word:
            raise InvalidRequest(
                f"line {number} is not understood: {shorten(line, 60)}",
                field="body",
                possible="nic NETWORK ADDRESS MAC, name HOSTNAME, host-key KEY, user-key KEY",
            )
    if len(said["name"]) > 1:
        raise InvalidRequest("the name is given twice", field="name", possible="name HOSTNAME once")
    return Identity(tuple(nics), "".join(said["name"]), tuple(said["host-key"]), tuple(said["user-key"]))


def read_form(body: bytes) -> str:
    """token_sha256 of a join."""
    return dict(parse_qsl(_text(body).strip())).get("token_sha256", "")


def read_ran(query: Mapping[str, str]) -> Ran:
    side = query.get("side", "")
    if side not in tuple(Side):
        raise InvalidRequest(f"{shorten(side, 40)!r} is no side", field="side", possible="provider or client")
    role, message = query.get("role", ""), " ".join(query.get("message", "").split())
    version, status = whole(query, "version"), whole(query, "status")
    return Ran(role, Side(side), check_hook(query.get("hook", "")), version, status, shorten(message, 200))


def read_turn(body: bytes) -> tuple[dict[str, str], bytes]:
    """The first line, as a query has it, and what a hook printed behind it."""
    first, _, printed = body.partition(b"\n")
    if len(printed) > LOG_BYTES_MAX:
        raise TooLarge(
            f"the log is larger than {LOG_BYTES_MAX} bytes", field="body", possible=f"the last {LOG_BYTES_MAX} bytes"
        )
    return dict(parse_qsl(_text(first), keep_blank_values=True)), printed


def whole(query: Mapping[str, str], name: str, default: str = "") -> int:
    text = query.get(name, default)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequest(f"{name} is not a whole number", field=name, asked=text, possible="digits")
    return int(text)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8", field="body", possible="text") from None
