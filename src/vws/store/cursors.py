"""Where a page of a listing ends, as text that a caller gives back.

The seal is no secret: it tells a cursor from what somebody mistook for one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from sqlalchemy import Table

from vws.core.errors import InvalidRequest


def cursor(table: Table, id: str) -> str:
    return base64.urlsafe_b64encode(_seal(table, id) + id.encode()).decode()


def read_cursor(table: Table, cursor: str) -> str:
    """The id in a cursor; raises InvalidRequest for what this listing did not give."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        id = raw[6:].decode()
        if raw[:6] == _seal(table, id):
            return id
    except (ValueError, binascii.Error):
        pass
    raise InvalidRequest(
        f"the cursor {cursor[:60]!r} was not given by this listing",
        field="after",
        asked=cursor[:60],
        possible="the `next` of the page before, or no cursor for the first page",
    )


def _seal(table: Table, id: str) -> bytes:
    return hashlib.blake2s(f"{table.name} {id}".encode(), digest_size=6).digest()
