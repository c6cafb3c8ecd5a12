"""A file on its way without its zeros.

The stream is frames: a header of two big-endian 64-bit numbers (offset, length), then as many bytes. Offsets grow; what
no frame covers is zero. The last frame has no bytes and says, as its offset, how long the file is: a stream without it
was cut short. A stream may begin anywhere, so that a transfer goes on where it broke; the sha256 is of the whole file,
zeros counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from vws.core.errors import InvalidRequest

HEADER_BYTES = 16
MEDIA_TYPE = "application/vnd.vws.frames"


def header(offset: int, length: int) -> bytes:
    return offset.to_bytes(8, "big") + length.to_bytes(8, "big")


def read_header(data: bytes) -> tuple[int, int]:
    """(offset, length) from HEADER_BYTES bytes."""
    return int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")


class FrameReader:
    """Takes a stream apart as it comes, in whatever pieces. `position`: up to where the file is known by now; `ended`:
    whether the last frame came."""

    def __init__(self, position: int, size_bytes: int) -> None:
        self.position = position
        self.ended = False
        self._size_bytes = size_bytes
        self._left = 0  # of the frame that is being read
        self._head = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The (offset, bytes) in a piece of the stream. InvalidRequest for what is no such stream of such a file."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left] if at or len(data) > self._left else data
                start, at = self.position, at + len(piece)
                self._left -= len(piece)
                self.position += len(piece)
                yield start, piece
            else:
                taken = data[at : at + HEADER_BYTES - len(self._head)]
                self._head, at = self._head + taken, at + len(taken)
                if len(self._head) == HEADER_BYTES:
                    self._begin(*read_header(self._head))
                    self._head = b""

    def _begin(self, offset: int, length: int) -> None:
        if self.ended or offset < self.position or offset + length > self._size_bytes:
            raise InvalidRequest(f"a frame at {offset} of {length} bytes does not fit here", field="body")
        if not length and offset != self._size_bytes:
            raise InvalidRequest(f"the last frame says {offset} bytes, not {self._size_bytes}", field="body")
        self.ended = not length
        self.position, self._left = offset, length
