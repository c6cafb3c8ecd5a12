"""Many guests' words in one transaction: the only writer of contexts in this process.

A thousand members report within a second, and a commit costs a disk flush; so whatever arrives while one batch is being
written makes the next. Each context is there twice: the *draft*, on which a batch is decided, and the one that is
*told*, which is moved only by what was committed. So nobody ever hears what a crash could take back.

A batch that another process was faster with is decided again on what is in the record by then. One that breaks a rule
of the store is taken apart, so that a bad word keeps no other waiting.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vws.core.broker import Context
from vws.core.context import ContextRecord, Moved, Notice
from vws.core.context_document import Documents
from vws.core.errors import NotFound, Unavailable, VwsError
from vws.core.site import Answer, Event
from vws.faultpoints import reach
from vws.ports import ContextChanges, ContextLog, KeptContext, StaleRevision
from vws.service.batches import next_batch
from vws.service.site import Site

log = logging.getLogger(__name__)

T = TypeVar("T")
Listener = Callable[[frozenset[str]], None]
# What is done to a draft at a time, UTC seconds.
Act = Callable[[Context, float], T]

BATCH_MAX = 500
TICK_S = 1.0
TRIES_MAX = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """opens: the context, if it is made by this. logs, answers: written with it."""

    context: str
    act: Act[Any]
    done: Future[Any]
    actor: str = ""
    opens: ContextRecord | None = None
    logs: tuple[ContextLog, ...] = ()
    answers: tuple[Answer, ...] = ()
    point: str = ""


@dataclass(slots=True)
class Told:
    """A context as it is in the record, with what members hear of it."""

    context: Context
    documents: Documents


@dataclass(slots=True)
class _Batch:
    drafts: dict[str, Context] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    actors: dict[str, str] = field(default_factory=dict)
    outcome: list[tuple[Asked, Any, VwsError | None]] = field(default_factory=list)


class ContextWriter:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = site.store.contexts
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._refreshing: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._drafts: dict[str, Context] = {}
        self._listeners: list[Listener] = []
        self._stopping = threading.Event()
        self._ticked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="contexts", daemon=True)
        # Around `told`: the loop that serves guests reads what this thread moves. Held for moments only.
        self.lock = threading.Lock()
        self.told: dict[str, Told] = {}
        for kept in self._store.live():
            self._learn(kept)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(ids of contexts)` after each commit, from any thread; returns the function that ends it."""
        self._listeners = [*self._listeners, listener]

        def unwatch() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return unwatch

    # ------------------------------------------------------------ asking

    def ask(self, context: str, act: Act[T], *, done: Future[T] | None = None, **more: Any) -> Future[T]:
        """`act` in the next batch; the future has its result once that is committed."""
        done = done or Future()
        if self._stopping.is_set():
            raise Unavailable("the service is stopping", possible="the same again in a moment")
        self._queue.put(Asked(context, act, done, **more))
        return done

    def refresh(self, then: Callable[[], None]) -> None:
        """Call `then` from the writing thread, when what other processes committed has been taken in."""
        self._refreshing.put(then)
        self._queue.put(Asked("", lambda context, now: None, Future()))

    def catch_up(self) -> None:
        """Take in what other processes committed. From the writing thread only."""
        found = self._store.revisions()
        with self.lock:
            mine = {id: told.context.record.revision for id, told in self.told.items()}
        moved = {id for id, revision in found.items() if mine.get(id, -1) < revision}
        changed = moved | (mine.keys() - found.keys())
        for id in changed:
            self._reload(id)
        if changed:
            self._tell(changed)

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        while not self._stopping.is_set():
            # As the reconciler: a loop that has ended would look well and answer nobody.
            try:
                self.take([asked for asked in next_batch(self._queue, BATCH_MAX, TICK_S) if asked.context])
                self._refresh()
                self._tick()
            except Exception:
                log.exception("writing contexts failed; it is tried again")

    def _refresh(self) -> None:
        if self._refreshing.empty():
            return
        self.catch_up()
        while not self._refreshing.empty():
            self._refreshing.get()()

    def _tick(self) -> None:
        now = self._site.clock.now()
        if self._ticked_at <= now < self._ticked_at + TICK_S:
            return
        self._ticked_at = now
        self.catch_up()
        late = [Asked(id, _pass_time, Future()) for id in list(self._drafts)]
        self.take(late)

    def take(self, batch: list[Asked]) -> None:
        """Decide and commit a batch, and answer each."""
        batch = [asked for asked in batch if asked.done.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            decided = self._commit(batch)
        except Exception as error:
            self._forget(batch)
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for asked in batch:
                    self._take_alone(asked)
                return
            _fail(batch, error)
            return
        _answer(decided)

    def _take_alone(self, asked: Asked) -> None:
        try:
            decided = self._commit([asked])
        except Exception as error:
            self._forget([asked])
            _fail([asked], error)
            return
        _answer(decided)

    def _commit(self, batch: list[Asked]) -> _Batch:
        for _ in range(TRIES_MAX):
            decided = self._decide(batch)
            changes, moved = self._gathered(decided)
            if not moved and not changes.answers and not changes.logs:
                return decided
            _reach(batch, "decided")
            try:
                with self._site.writing():
                    seq = self._store.commit(changes)
            except StaleRevision:
                for id in decided.drafts:
                    self._reload(id)
                continue
            _reach(batch, "committed")
            self._publish(moved)
            if changes.events:
                self._site.noticed(seq)
            return decided
        raise Unavailable("too many changes at once; nothing was changed", possible="the same again in a moment")

    def _decide(self, batch: Iterable[Asked]) -> _Batch:
        decided, now = _Batch(), self._site.clock.now()
        for asked in batch:
            try:
                draft = self._draft(asked, decided)
                decided.outcome.append((asked, asked.act(draft, now), None))
                decided.actors[asked.context] = asked.actor
            except VwsError as error:
                decided.outcome.append((asked, None, error))
        return decided

    def _draft(self, asked: Asked, decided: _Batch) -> Context:
        draft = self._drafts.get(asked.context)
        if draft is None and asked.opens is not None:
            draft = Context(asked.opens)
            draft.open()
            decided.opened.add(asked.context)
        if draft is None:
            raise NotFound(f"there is no open context {asked.context}", field="id", asked=asked.context)
        self._drafts[asked.context] = decided.drafts[asked.context] = draft
        return draft

    def _gathered(self, decided: _Batch) -> tuple[ContextChanges, list[Moved]]:
        now, moved, events = self._site.clock.now(), [], []
        failed = {asked.context for asked, _, error in decided.outcome if error is not None and asked.opens is not None}
        for id, draft in decided.drafts.items():
            if id in decided.opened and id in failed:
                self._drafts.pop(id)
                continue
            found = draft.take(now)
            if found is not None:
                moved.append(found)
                actor = decided.actors.get(id, "")
                events += [self._event(found, notice, actor, now) for notice in found.notices]
        good = [asked for asked, _, error in decided.outcome if error is None]
        changes = ContextChanges(
            tuple(each.record for each in moved),
            frozenset(decided.opened - failed),
            tuple(member for each in moved for member in each.members),
            _last(log for asked in good for log in asked.logs),
            tuple(events),
            tuple(answer for asked in good for answer in asked.answers),
        )
        return changes, moved

    def _event(self, moved: Moved, notice: Notice, actor: str, now: float) -> Event:
        record = moved.record
        member = self._drafts[record.id].members.get(notice.member)
        workspace = self._site.present.workspaces.get(member.expected.workspace) if member else None
        data = {"context": record.id, "name": record.name, **({"member": notice.member} if notice.member else {})}
        return Event(
            at=now,
            actor=actor or record.owner,
            kind=notice.kind,
            owner=record.owner,
            lease=workspace.lease if workspace else "",
            workspace=workspace.id if workspace else "",
            data=data | notice.data,
        )

    # ------------------------------------------------------------ what is told

    def _publish(self, moved: list[Moved]) -> None:
        with self.lock:
            for each in moved:
                told = self.told.get(each.record.id)
                if told is None:
                    context = Context(each.record)
                    told = self.told[each.record.id] = Told(context, Documents(context))
                told.context.apply(each.record, each.members)
                told.documents.renew()
        for each in moved:
            if each.record.closed_at is not None:
                self._drafts.pop(each.record.id, None)
        self._tell({each.record.id for each in moved})
        with self.lock:
            for each in moved:
                if each.record.closed_at is not None:
                    self.told.pop(each.record.id)

    def _tell(self, ids: Iterable[str]) -> None:
        told = frozenset(ids)
        for listener in self._listeners:
            listener(told)

    def _learn(self, kept: KeptContext) -> None:
        context = Context(kept.record, kept.members)
        self._drafts[kept.record.id] = Context(kept.record, kept.members)
        with self.lock:
            self.told[kept.record.id] = Told(context, Documents(context))

    def _reload(self, id: str) -> None:
        kept = self._store.get(id)
        if kept is not None and kept.record.closed_at is None:
            self._learn(kept)
            return
        self._drafts.pop(id, None)
        with self.lock:
            self.told.pop(id, None)

    def _forget(self, batch: Iterable[Asked]) -> None:
        """Drafts of a batch that was not committed begin again from what was."""
        for id in {asked.context for asked in batch}:
            self._drafts.pop(id, None)
            told = self.told.get(id)
            if told is not None:
                self._drafts[id] = Context(told.context.record, told.context.members.values())


def _pass_time(context: Context, now: float) -> None:
    context.pass_time(now)


def _last(logs: Iterable[ContextLog]) -> tuple[ContextLog, ...]:
    """One for each hook: a statement may not write the same row twice."""
    return tuple({(log.context, log.member, log.role, log.side, log.hook): log for log in logs}.values())


def _fail(batch: Iterable[Asked], error: Exception) -> None:
    if not isinstance(error, VwsError):
        log.exception("a batch of contexts could not be written")
    for asked in batch:
        asked.done.set_exception(error)


def _answer(decided: _Batch) -> None:
    for asked, result, error in decided.outcome:
        if error is None:
            asked.done.set_result(result)
        else:
            asked.done.set_exception(error)


_POINTS = {
    ("join", "decided"): lambda: reach("service.context.join.decided"),
    ("join", "committed"): lambda: reach("service.context.join.committed"),
    ("identity", "decided"): lambda: reach("service.context.identity.decided"),
    ("identity", "committed"): lambda: reach("service.context.identity.committed"),
    ("publish", "decided"): lambda: reach("service.context.publish.decided"),
    ("publish", "committed"): lambda: reach("service.context.publish.committed"),
    ("ran", "decided"): lambda: reach("service.context.ran.decided"),
    ("ran", "committed"): lambda: reach("service.context.ran.committed"),
}


def _reach(batch: Iterable[Asked], step: str) -> None:
    for point in {asked.point for asked in batch if asked.point}:
        _POINTS[point, step]()
