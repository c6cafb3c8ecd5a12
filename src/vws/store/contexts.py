"""The record of contexts: many members' words in one transaction, beside the site's own commits.

A batch moves each of its contexts from the revision that it was decided on to the next one, as the site's row does for
a site's commit, so that two processes never both change a context on the same ground. It takes numbers for its events
from the site's row without moving the site's revision: no decision about leases depends on a context in that instant,
and none has to be made again because a guest reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from vws.core.context import ContextRecord, Member
from vws.core.errors import ClientTokenReused, Conflict, InvalidRequest, NameTaken
from vws.core.site import Answer, Event
from vws.ports import ContextChanges, ContextLog, Filter, KeptContext, Page, StaleRevision
from vws.store.cursors import cursor, read_cursor
from vws.store.database import Database
from vws.store.schema import answers, context_logs, context_members, contexts, events, site

RECORD = tuple(field.name for field in fields(ContextRecord))
MEMBER = tuple(field.name for field in fields(Member))
_FIXED = ("id", "name", "owner", "spec", "information", "created_at")


class SqlContexts:
    """`vws.ports.ContextStore` over a database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._put_member = _upsert(database, context_members, ("context", "name"))
        self._put_log = _upsert(database, context_logs, ("context", "member", "role", "side", "hook"))

    # ------------------------------------------------------------ writing

    def commit(self, changes: ContextChanges) -> int:
        try:
            with self._database.writing() as connection:
                self._write(connection, changes)
                return _record(connection, changes)
        except IntegrityError as error:
            raise self._explained(changes, error) from error

    def _write(self, connection: Connection, changes: ContextChanges) -> None:
        opened = [record for record in changes.contexts if record.id in changes.opened]
        if opened:
            connection.execute(contexts.insert(), [_row(record, RECORD) for record in opened])
        for record in changes.contexts:
            if record.id not in changes.opened:
                _move(connection, record)
        if changes.members:
            connection.execute(self._put_member, [_row(member, MEMBER) for member in changes.members])
        if changes.logs:
            connection.execute(self._put_log, [_row(log, LOG) for log in changes.logs])

    def _explained(self, changes: ContextChanges, error: IntegrityError) -> Conflict:
        names = [record.name for record in changes.contexts if record.id in changes.opened]
        with self._database.reading_one() as connection:
            query = select(contexts.c.name, contexts.c.id, contexts.c.cluster).where(
                contexts.c.live, contexts.c.name.in_(names)
            )
            taken = connection.execute(query).first()
        if taken is not None:
            # Who launches a cluster has not heard of contexts.
            holder = f"the cluster {taken.cluster}" if taken.cluster else f"the context {taken.id}"
            return NameTaken(
                f"the name {taken.name} is taken: {holder} has it; nothing was changed",
                field="name",
                asked=taken.name,
                possible="another name",
                details={"holder": taken.cluster or taken.id},
            )
        if changes.answers:
            return ClientTokenReused("this client token was answered a moment ago; nothing was changed")
        return Conflict(f"the change breaks a rule of the store: {error.orig}; nothing was changed")

    # ------------------------------------------------------------ reading

    def live(self) -> tuple[KeptContext, ...]:
        with self._database.reading() as connection:
            return _kept(connection, select(*(contexts.c[name] for name in RECORD)).where(contexts.c.live))

    def get(self, id: str) -> KeptContext | None:
        with self._database.reading() as connection:
            found = _kept(connection, select(*(contexts.c[name] for name in RECORD)).where(contexts.c.id == id))
        return found[0] if found else None

    def revisions(self) -> dict[str, int]:
        with self._database.reading_one() as connection:
            query = select(contexts.c.id, contexts.c.revision).where(contexts.c.live)
            return {row.id: row.revision for row in connection.execute(query)}

    def page(self, where: Filter, *, after: str | None, limit: int) -> Page:
        if limit < 1:
            raise InvalidRequest("a page has at least one item", field="limit", asked=limit, possible="1 or more")
        query = select(*(contexts.c[name] for name in RECORD)).order_by(contexts.c.id).limit(limit + 1)
        for name in ("owner", "name"):
            if getattr(where, name) is not None:
                query = query.where(contexts.c[name] == getattr(where, name))
        if where.live:
            query = query.where(contexts.c.live)
        if after is not None:
            query = query.where(contexts.c.id > read_cursor(contexts, after))
        with self._database.reading_one() as connection:
            found = [ContextRecord(*row) for row in connection.execute(query)]
        items = found[:limit]
        return Page(tuple(items), cursor(contexts, items[-1].id) if len(found) > limit else None)

    def logs(self, id: str, member: str) -> tuple[ContextLog, ...]:
        table = context_logs
        query = select(*(table.c[name] for name in LOG)).where(table.c.context == id, table.c.member == member)
        with self._database.reading_one() as connection:
            return tuple(ContextLog(*row) for row in connection.execute(query))


LOG = tuple(field.name for field in fields(ContextLog))


def _move(connection: Connection, record: ContextRecord) -> None:
    values = {name: getattr(record, name) for name in RECORD if name not in _FIXED}
    stood = (contexts.c.id == record.id) & (contexts.c.revision == record.revision - 1)
    move = update(contexts).where(stood).values(**values, live=record.closed_at is None)
    if connection.execute(move).rowcount != 1:
        raise StaleRevision


def _record(connection: Connection, changes: ContextChanges) -> int:
    """Write events and answers; return the seq of the last event."""
    count = len(changes.events)
    taken = update(site).values(last_seq=site.c.last_seq + count).returning(site.c.revision, site.c.last_seq)
    moved = connection.execute(taken).one()
    names = [field.name for field in fields(Event)]
    rows = [
        {name: getattr(event, name) for name in names}
        | {"seq": moved.last_seq - count + 1 + i, "revision": moved.revision}
        for i, event in enumerate(changes.events)
    ]
    if rows:
        connection.execute(events.insert(), rows)
    if changes.answers:
        names = [field.name for field in fields(Answer)]
        connection.execute(answers.insert(), [_row(answer, names) for answer in changes.answers])
    return int(moved.last_seq)


def _row(value: Any, names: Iterable[str]) -> dict[str, Any]:
    row = {name: getattr(value, name) for name in names}
    return row | {"live": value.closed_at is None} if isinstance(value, ContextRecord) else row


def _kept(connection: Connection, query: Any) -> tuple[KeptContext, ...]:
    records = [ContextRecord(*row) for row in connection.execute(query)]
    table, found = context_members, defaultdict(list)
    for part in _parts([record.id for record in records]):
        members = select(*(table.c[name] for name in MEMBER)).where(table.c.context.in_(part))
        for row in connection.execute(members):
            found[row.context].append(Member(*row))
    return tuple(KeptContext(record, tuple(found[record.id])) for record in sorted(records, key=lambda each: each.id))


def _parts(ids: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _upsert(database: Database, table: Any, key: tuple[str, ...]) -> Any:
    statement = database.insert(table)
    replaced = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=list(key), set_=replaced)
