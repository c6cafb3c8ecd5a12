"""The store over SQL: SQLite for a small site, PostgreSQL for one with several service processes.

One row, `site`, holds the revision. A commit moves it from the revision that the decision was made on to the next, in
the same transaction as everything else; on both databases the second of two such updates waits for the first and then
finds nothing to move. That one statement is the whole protocol between processes, and since it puts commits in order,
the numbers it hands to events are in the order of commits too.

Values are written whole, by id. Unique rules are the database's; when one breaks, what exactly broke is looked up
afterwards, for a message that says which value and who has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, func, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from vws.core.caches import NodeCache
from vws.core.errors import ClientTokenReused, Conflict, InvalidRequest, NameTaken
from vws.core.site import (
    Address,
    Answer,
    Changes,
    Cluster,
    Document,
    Event,
    Image,
    ImageTag,
    Lease,
    Maintenance,
    Node,
    Revocation,
    Save,
    SealedKey,
    Signer,
    Subscription,
    Token,
    Workspace,
)
from vws.ports import Filter, Page, Snapshot, StaleRevision
from vws.store import schema
from vws.store.contexts import SqlContexts
from vws.store.cursors import cursor, read_cursor
from vws.store.database import Database, open_database
from vws.store.schema import (
    TABLES,
    answers,
    caches,
    events,
    heard,
    image_documents,
    leases,
    nodes,
    sealed_keys,
    signers,
    site,
    tokens,
    workspaces,
)
from vws.store.upgrade import upgrade

# A token that expired this long before the last event is not loaded at start.
EXPIRED_LONG_AGO_S = 30 * 86400

FIELDS: dict[type[Any], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in (*TABLES, Event, Answer, Document, SealedKey)
}
# References point to what is written before.
WRITTEN: tuple[tuple[type[Any], str], ...] = (
    (Image, "images"),
    (ImageTag, "image_tags"),
    (Signer, "signers"),
    (Revocation, "revocations"),
    (Subscription, "subscriptions"),
    (Node, "nodes"),
    (Cluster, "clusters"),
    (Lease, "leases"),
    (Workspace, "workspaces"),
    (Token, "tokens"),
    (Maintenance, "maintenances"),
    (Address, "addresses"),
    (Save, "saves"),
    (NodeCache, "caches"),
)
# The fields of a filter that a value has as they are.
NAMED = ("owner", "lease", "workspace", "node", "image", "name", "series", "cluster", "pool", "content", "tag")
# What a filter's field means where it is no column of that name.
MEANINGS: dict[tuple[Table, str], str] = {
    (leases, "lease"): "id",
    (workspaces, "workspace"): "id",
    (nodes, "node"): "id",
    (tokens, "owner"): "subject",
    (caches, "node"): "id",
    **{(table, "states"): "state" for table in (leases, workspaces, nodes)},
}


class SqlStore:
    """`vws.ports.Store` over a database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._upserts = {kind: _upsert(database.insert, table) for kind, table in TABLES.items()}
        self._heard = _upsert_heard(database.insert)
        self.contexts = SqlContexts(database)

    @classmethod
    def open(cls, url: str) -> SqlStore:
        """The store at `sqlite:///PATH` or `postgresql://…`, its tables made or brought up to date.

        Raises InvalidRequest for another URL, Conflict for a database written by a newer VWS, Unavailable if it cannot
        be reached or written.
        """
        database = open_database(url)
        try:
            upgrade(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self._database.close()

    def lead(self) -> bool:
        return self._database.lead()

    def bringing_files(self) -> AbstractContextManager[None]:
        return self._database.bringing_files()

    def dropping_files(self) -> AbstractContextManager[bool]:
        return self._database.dropping_files()

    # ------------------------------------------------------------ writing

    def commit(self, changes: Changes, *, expected: int) -> tuple[int, int]:
        _check_text(changes)
        try:
            with self._database.writing() as connection:
                revision, last_seq = _advance(connection, expected, len(changes.events))
                self._write_values(connection, changes, revision)
                _write_record(connection, changes, revision, last_seq)
        except IntegrityError as error:
            raise self._broken_rule(changes, error) from error
        return revision, last_seq

    def _write_values(self, connection: Connection, changes: Changes, revision: int) -> None:
        for kind, name in WRITTEN:
            values = getattr(changes, name)
            if values:
                rows = [_row(value, revision) for value in values]
                # What ends gives its name and address back before another takes them.
                rows.sort(key=lambda row: row["live"])
                connection.execute(self._upserts[kind], rows)

    def heard(self, at_by_node: dict[str, float]) -> None:
        if not at_by_node:
            return
        # Sorted: two processes that write the same rows never wait for each other crosswise.
        rows = [{"node": node, "at": at} for node, at in sorted(at_by_node.items())]
        with self._database.writing() as connection:
            connection.execute(self._heard, rows)

    def forget(self, *, answers_before: float) -> int:
        with self._database.writing() as connection:
            return connection.execute(delete(answers).where(answers.c.at < answers_before)).rowcount

    # ------------------------------------------------------------ reading

    def revision(self) -> int:
        return int(self._scalar(select(site.c.revision)))

    def last_seq(self) -> int:
        return int(self._scalar(select(site.c.last_seq)))

    def load(self) -> Snapshot:
        of_live_leases = workspaces.c.lease.in_(select(leases.c.id).where(leases.c.live))
        with self._database.reading() as connection:
            return _snapshot(
                connection,
                lambda table: _alive(table, of_live_leases),
                tokens_expired_before=_long_ago(connection),
            )

    def changed_since(self, revision: int) -> Snapshot:
        with self._database.reading() as connection:
            return _snapshot(connection, lambda table: table.c.revision > revision)

    def get(self, kind: type[Any], id: str) -> Any:
        found = self._values(kind, _select(kind).where(TABLES[kind].c.id == id))
        return found[0] if found else None

    def page(
        self, kind: type[Any], where: Filter, *, after: str | None, limit: int, newest_first: bool = False
    ) -> Page:
        if limit < 1:
            raise InvalidRequest("a page has at least one item", field="limit", asked=limit, possible="1 or more")
        table = TABLES[kind]
        id = table.c.id
        query = _select(kind).where(*_conditions(table, where)).limit(limit + 1)
        query = query.order_by(id.desc() if newest_first else id)
        if after is not None:
            last = read_cursor(table, after)
            query = query.where(id < last if newest_first else id > last)
        found = self._values(kind, query)
        items = found[:limit]
        return Page(tuple(items), cursor(table, items[-1].id) if len(found) > limit else None)

    def events(self, where: Filter, *, after: int, limit: int) -> tuple[Event, ...]:
        query = _select(Event).where(*_conditions(events, where), events.c.seq > after)
        return tuple(self._values(Event, query.order_by(events.c.seq).limit(limit)))

    def answer(self, subject: str, client_token: str) -> Answer | None:
        key = and_(answers.c.subject == subject, answers.c.client_token == client_token)
        found = self._values(Answer, _select(Answer).where(key))
        return found[0] if found else None

    def documents(self, image: str) -> tuple[Document, ...]:
        query = _select(Document).where(image_documents.c.image == image).order_by(image_documents.c.id)
        return tuple(self._values(Document, query))

    def documents_bytes(self, by: str) -> int:
        query = select(func.coalesce(func.sum(func.length(image_documents.c.content)), 0)).where(
            image_documents.c.by == by, image_documents.c.image.in_(_images(live=True))
        )
        with self._database.reading_one() as connection:
            return int(connection.scalar(query) or 0)

    def forget_documents(self) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(image_documents).where(image_documents.c.image.in_(_images(live=False))))

    def keys(self, of: str) -> tuple[SealedKey, ...]:
        query = _select(SealedKey).where(sealed_keys.c.of == of).order_by(sealed_keys.c.id)
        return tuple(self._values(SealedKey, query))

    def keys_of(self) -> frozenset[str]:
        with self._database.reading_one() as connection:
            return frozenset(connection.scalars(select(sealed_keys.c.of).distinct()))

    def forget_keys(self, of: Iterable[str]) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(sealed_keys).where(sealed_keys.c.of.in_(list(of))))

    def heard_at(self) -> dict[str, float]:
        with self._database.reading_one() as connection:
            return {row.node: row.at for row in connection.execute(select(heard))}

    def _scalar(self, query: Select[Any]) -> Any:
        with self._database.reading_one() as connection:
            return connection.scalar(query)

    def _values(self, kind: type[Any], query: Select[Any]) -> list[Any]:
        with self._database.reading_one() as connection:
            return [kind(*row) for row in connection.execute(query)]

    # ------------------------------------------------------------ broken rules

    def _broken_rule(self, changes: Changes, error: IntegrityError) -> Conflict:
        """What the database refused, in words: it names the constraint at best, never the two parties."""
        for table, columns, called in schema.UNIQUE:
            found = self._holder(changes, table, columns)
            if found:
                return _taken(table, columns[-1], called, *found)
        for answer in changes.answers:
            if self.answer(answer.subject, answer.client_token):
                return ClientTokenReused(
                    f"the client token {answer.client_token!r} was answered before; nothing was changed",
                    field="client_token",
                    asked=answer.client_token,
                    possible="the same request again, or another token",
                )
        return Conflict(f"the change breaks a rule of the store: {error.orig}; nothing was changed")

    def _holder(self, changes: Changes, table: Table, columns: tuple[str, ...]) -> tuple[str, str] | None:
        """(value, id of the live one that has it) if `changes` would give it to another."""
        written = {value.id: value for value in getattr(changes, table.name)}
        wanted: dict[tuple[str, ...], str] = {}
        for value in filter(schema.live, written.values()):
            held = tuple(getattr(value, column) for column in columns)
            if wanted.setdefault(held, value.id) != value.id:
                return held[-1], wanted[held]
        last = table.c[columns[-1]]
        query = select(*(table.c[column] for column in columns), table.c.id)
        query = query.where(table.c.live, last.in_([held[-1] for held in wanted]))
        with self._database.reading_one() as connection:
            rows = [(tuple(held), id) for *held, id in connection.execute(query)]
        others = [(held[-1], id) for held, id in rows if held in wanted and id not in written]
        return others[0] if others else None


def _taken(table: Table, column: str, called: str, value: str, holder: str) -> Conflict:
    if column == "name":
        return NameTaken(
            f"the name {value} is taken: {holder} has it; nothing was changed",
            field="name",
            asked=value,
            possible="another name",
            details={"holder": holder},
        )
    shown = "" if table is tokens else f" {value}"
    return Conflict(
        f"the {called}{shown} is held by {holder}; nothing was changed", field=column, details={"holder": holder}
    )


# ---------------------------------------------------------------- rows


def _row(value: Any, revision: int) -> dict[str, Any]:
    row = {name: getattr(value, name) for name in FIELDS[type(value)]}
    row["live"] = schema.live(value)
    row["revision"] = revision
    if type(value) is Node:
        row["state"] = str(value.state)
    if type(value) is Image:
        row["content"] = value.content
    return row


def _check_text(changes: Changes) -> None:
    """SQLite would keep a NUL in a text, PostgreSQL does not: refuse it on both."""
    for group in fields(changes):
        for value in getattr(changes, group.name):
            for name in () if type(value) is str else FIELDS[type(value)]:
                held = getattr(value, name)
                if type(held) is str and "\0" in held:
                    raise InvalidRequest(
                        f"{name} holds a NUL character, which cannot be kept; nothing was changed",
                        field=name,
                        possible="text without NUL characters",
                    )


def _advance(connection: Connection, expected: int, seqs: int) -> tuple[int, int]:
    """Take the next revision and as many event numbers; StaleRevision if another commit was first."""
    move = (
        update(site)
        .where(site.c.revision == expected)
        .values(revision=site.c.revision + 1, last_seq=site.c.last_seq + seqs)
        .returning(site.c.revision, site.c.last_seq)
    )
    moved = connection.execute(move).one_or_none()
    if moved is None:
        raise StaleRevision
    return moved.revision, moved.last_seq


def _write_record(connection: Connection, changes: Changes, revision: int, last_seq: int) -> None:
    first = last_seq - len(changes.events) + 1
    rows = [
        {name: getattr(event, name) for name in FIELDS[Event]} | {"seq": first + i, "revision": revision}
        for i, event in enumerate(changes.events)
    ]
    if rows:
        connection.execute(events.insert(), rows)
    for table, kind, values in (
        (answers, Answer, changes.answers),
        (image_documents, Document, changes.documents),
        (sealed_keys, SealedKey, changes.keys),
    ):
        rows = [{name: getattr(value, name) for name in FIELDS[kind]} for value in values]
        if rows:
            connection.execute(table.insert(), rows)
    if changes.dropped_documents:
        connection.execute(delete(image_documents).where(image_documents.c.id.in_(changes.dropped_documents)))


@cache
def _upsert(insert: Callable[..., Any], table: Table) -> Any:
    statement = insert(table)
    replaced = {column.name: statement.excluded[column.name] for column in table.c if column.name != "id"}
    return statement.on_conflict_do_update(index_elements=["id"], set_=replaced)


@cache
def _upsert_heard(insert: Callable[..., Any]) -> Any:
    statement = insert(heard)
    return statement.on_conflict_do_update(
        index_elements=["node"], set_={"at": statement.excluded.at}, where=statement.excluded.at > heard.c.at
    )


def _images(*, live: bool) -> Select[Any]:
    images = schema.images
    return select(images.c.id).where(images.c.removed_at.is_(None) if live else images.c.removed_at.is_not(None))


def _select(kind: type[Any]) -> Select[Any]:
    table = {Event: events, Answer: answers, Document: image_documents, SealedKey: sealed_keys}.get(
        kind, TABLES.get(kind)
    )
    assert table is not None, kind
    return select(*(table.c[name] for name in FIELDS[kind]))


def _snapshot(
    connection: Connection,
    wanted: Callable[[Table], ColumnElement[bool]],
    *,
    tokens_expired_before: float | None = None,
) -> Snapshot:
    found: dict[str, tuple[Any, ...]] = {}
    for kind, name in WRITTEN:
        table = TABLES[kind]
        query = _select(kind).where(wanted(table))
        if table is tokens and tokens_expired_before is not None:
            query = query.where(or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > tokens_expired_before))
        # Sorted here: asked to, SQLite would walk all ids rather than look at the few rows that are wanted.
        found[name] = tuple(sorted((kind(*row) for row in connection.execute(query)), key=_id))
    return Snapshot(connection.execute(select(site.c.revision)).scalar_one(), **found)


def _alive(table: Table, of_live_leases: ColumnElement[bool]) -> ColumnElement[bool]:
    """What the site has in mind: of signers the revoked ones too."""
    return of_live_leases if table is workspaces else true() if table is signers else table.c.live


def _id(value: Any) -> str:
    return str(value.id)


def _long_ago(connection: Connection) -> float | None:
    """By the record's own time: the store has no clock."""
    last = connection.scalar(select(events.c.at).order_by(events.c.seq.desc()).limit(1))
    return None if last is None else last - EXPIRED_LONG_AGO_S


# ---------------------------------------------------------------- listings


def _conditions(table: Table, where: Filter) -> Iterator[ColumnElement[bool]]:
    for name in NAMED:
        wanted = getattr(where, name)
        if wanted is not None:
            yield _column(table, name) == wanted
    if where.live:
        yield _column(table, "live")
    if where.states:
        yield _column(table, "states").in_(where.states)


def _column(table: Table, name: str) -> ColumnElement[Any]:
    column = MEANINGS.get((table, name), name)
    if column not in table.c:
        raise InvalidRequest(f"{table.name} cannot be listed by {name}", field=name, possible="a listing without it")
    return table.c[column]
