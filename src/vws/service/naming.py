"""Things found by their names, which may be given again once their last bearer has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vws.ports import Filter, Store


def latest(store: Store, kind: type[Any], where: Filter) -> Any:
    """Of those of a name, the live one, else the one that was made last; None if there is none."""
    return _last(store, kind, replace(where, live=True)) or _last(store, kind, where)


def _last(store: Store, kind: type[Any], where: Filter) -> Any:
    found, after = None, None
    while True:
        page = store.page(kind, where, after=after, limit=200)
        found = page.items[-1] if page.items else found
        after = page.next
        if after is None:
            return found
