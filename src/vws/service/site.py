"""The one way to change a site, and what it looks like.

`Site.change` takes a decision (a function on a `Draft`), commits what it decided in one transaction, and only then
moves the memory: many may propose, one commits. If another process moved the store in between, the decision is made
again on the new state; a refusal too is only believed when the state it was made on still stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vws.core.chosen import Chosen
from vws.core.draft import Draft
from vws.core.enactment import settle_plan
from vws.core.errors import Unavailable, VwsError
from vws.core.image_quota import ImageRules
from vws.core.information import Informed
from vws.core.outlook import Outlook
from vws.core.plan.rules import Rules
from vws.core.pools import Pool
from vws.core.present import Present
from vws.core.rates import Configured
from vws.core.site import Answer, Changes, Event
from vws.core.standing import Patience
from vws.core.tariff import Price, Tariff, per_node_hour
from vws.ports import Clock, Filter, Ids, Snapshot, StaleRevision, Store
from vws.service.once import Once
from vws.service.rates import SiteRates

T = TypeVar("T")
Listener = Callable[[frozenset[str], int], None]
Follower = Callable[[Changes], None]
TRIES_MAX = 50


@dataclass(frozen=True)
class Settings:
    """What an administrator decides about a site's service. guest_network is cut into one subnet per node.
    image_policy: its file, None for a site without one."""

    name: str = "site"
    url: str = ""
    guest_network: str = "10.64.0.0/10"
    node_prefix: int = 24
    image_bytes_max: int = 64 * 1024**3
    patience: Patience = field(default_factory=Patience)
    rates: Configured = field(default_factory=Configured)
    chosen: Chosen = field(default_factory=Chosen)
    tariff: Tariff = field(default_factory=Tariff)
    price: Price = per_node_hour
    rules: Rules | None = None
    informed: Informed = field(default_factory=Informed)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    image_policy: Path | None = None
    images: ImageRules = field(default_factory=ImageRules)


class Site:
    def __init__(self, store: Store, clock: Clock, ids: Ids, settings: Settings) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.settings = settings
        self.lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._followers: list[Follower] = []
        self._untold: set[str] = set()  # nodes with new orders, since the listeners were last told
        self._trouble = ""
        self.present = Present(Outlook(settings.rules, settings.chosen), settings.pools)
        snapshot = store.load()
        self.revision = snapshot.revision
        self.seq = store.last_seq()
        self.rates = SiteRates(settings.rates)
        self.rates.load(store)
        self.present.outlook.learn(self.rates.now)
        self.present.apply(_as_changes(snapshot), clock.now())

    # ------------------------------------------------------------ writing

    def change(
        self, actor: str, decide: Callable[[Draft], T], *, once: Once | None = None, subject: str = ""
    ) -> T | Answer:
        """Decide, commit, and return the decision's result; the kept answer if `once` was answered before.

        Raises what `decide` raises (nothing is changed then), and Unavailable when the store does not answer.
        """
        with self._moving():
            return self._change(actor, decide, once, subject)

    def _change(self, actor: str, decide: Callable[[Draft], T], once: Once | None, subject: str) -> T | Answer:
        for _ in range(TRIES_MAX):
            kept = self.store.answer(subject, once.client_token) if once else None
            if once and kept:
                return once.check(kept)
            try:
                with self._planning():
                    result, changes = self._decide(actor, decide, once, subject)
                    self._commit(changes)
                return result
            except StaleRevision:
                self._catch_up()
        raise Unavailable(
            "too many changes at once; nothing was changed", possible="the same request again in a moment"
        )

    @contextmanager
    def _planning(self) -> Iterator[None]:
        """A decision moves the plan as it is made; one that is not committed leaves it as it is recorded."""
        moves = self.present.outlook.planner.moves
        try:
            yield
        except BaseException:
            if self.present.outlook.planner.moves != moves:
                self.present.plan_anew(self.clock.now())
            raise

    def _decide(self, actor: str, decide: Callable[[Draft], T], once: Once | None, subject: str) -> tuple[T, Changes]:
        draft = Draft(self.present, actor=actor, now=self.clock.now())
        try:
            result = decide(draft)
            settle_plan(draft, self.ids.new)
        except VwsError:
            if self.store.revision() != self.revision:
                raise StaleRevision from None
            raise
        changes = draft.changes
        if once:
            changes += Changes(answers=(once.answer(subject, result, draft),))
        return result, changes

    def _commit(self, changes: Changes) -> None:
        if not changes:
            return
        with self.writing():
            self.revision, self.seq = self.store.commit(changes, expected=self.revision)
        self.rates.hear(changes.events, self.seq)
        self._apply(changes)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around every write to the store: `health` tells whether the last one succeeded."""
        try:
            yield
        except Unavailable as error:
            self._trouble = error.problem
            raise
        else:
            self._trouble = ""

    def _apply(self, changes: Changes) -> None:
        before = {n.id: self.present.nodes[n.id].generation for n in changes.nodes if n.id in self.present.nodes}
        self._untold |= {n.id for n in changes.nodes if before.get(n.id) != n.generation}
        self.present.outlook.learn(self.rates.now)
        self.present.apply(changes, self.clock.now())
        for follower in self._followers:
            follower(changes)

    # ------------------------------------------------------------ several processes

    def catch_up(self) -> None:
        """Take in what other processes committed, and wake those who wait for it."""
        if self.store.revision() == self.revision:
            return
        with self._moving():
            self._catch_up()

    def _catch_up(self) -> None:
        news = self.store.changed_since(self.revision)
        self.rates.follow(self.store)
        self.revision, self.seq = news.revision, self.store.last_seq()
        self._apply(_as_changes(news))

    # ------------------------------------------------------------ watching

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(ids of nodes with new orders, seq of the last event)` after each change, from any thread.

        Returns the function that ends it. A listener must be quick and must not raise.
        """
        self._listeners = [*self._listeners, listener]

        def unwatch() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return unwatch

    def follow(self, follower: Follower) -> None:
        """Call `follower(changes)` with each commit, other processes' too, as it is taken in: under the lock, from any
        thread. It must be quick and must not raise; it is for as long as the site."""
        self._followers = [*self._followers, follower]

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Under the lock; who watches is told afterwards, also of what others committed and a refusal was made on."""
        reordered: frozenset[str] = frozenset()
        before = after = self.seq
        try:
            with self.lock:
                before = self.seq
                try:
                    yield
                finally:
                    reordered, self._untold, after = frozenset(self._untold), set(), self.seq
        finally:
            if reordered or after != before:
                for listener in self._listeners:
                    listener(reordered, after)

    def noticed(self, seq: int) -> None:
        """Another part of this process wrote events, the last one `seq`: those who follow them are woken. Not under the
        lock, for it changes nothing that a decision looks at."""
        self.seq = max(self.seq, seq)
        for listener in self._listeners:
            listener(frozenset(), seq)

    # ------------------------------------------------------------ looking

    def events(self, where: Filter, *, after: int, limit: int) -> tuple[Event, ...]:
        return self.store.events(where, after=after, limit=limit)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many live leases, workspaces and nodes are in each state."""
        with self.lock:
            tables: dict[str, list[Any]] = {
                "leases": list(self.present.leases.values()),
                "workspaces": list(self.present.workspaces.values()),
                "nodes": list(self.present.nodes.values()),
            }
        counted: dict[str, dict[str, int]] = {name: {} for name in tables}
        for name, values in tables.items():
            for value in values:
                counted[name][str(value.state)] = counted[name].get(str(value.state), 0) + 1
        return counted

    def health(self) -> dict[str, Any]:
        """{"status": "ok", ...}; raises Unavailable when the store does not answer or could not be written just now."""
        if self._trouble:
            raise Unavailable(self._trouble, possible="room on its disk, or the database back")
        return {"status": "ok", "revision": self.store.revision(), "time": self.clock.now()}


def _as_changes(snapshot: Snapshot) -> Changes:
    return Changes(
        snapshot.leases,
        snapshot.workspaces,
        snapshot.nodes,
        snapshot.images,
        snapshot.tokens,
        maintenances=snapshot.maintenances,
        clusters=snapshot.clusters,
        image_tags=snapshot.image_tags,
        signers=snapshot.signers,
        revocations=snapshot.revocations,
        subscriptions=snapshot.subscriptions,
        addresses=snapshot.addresses,
        saves=snapshot.saves,
        caches=snapshot.caches,
    )
