"""Clusters, as users ask for them: read the file, open the context, launch, and keep the context in step.

A context is opened before its cluster is launched, and closed again if the launch is refused: members find it from the
moment that they have a node. From then on the cluster's workspaces are the context's members; who comes and goes is
read off the site's own commits, each of which says which clusters it touched, and after a restart off the record. So
nothing has to be done twice that a killed service began: what is missing is seen and made up for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from vws.core import cluster as decisions
from vws.core.cluster_places import told_by_line
from vws.core.cluster_spec import ClusterFile, cluster_request, lease_request, renamed
from vws.core.clusterfile import read_cluster_file
from vws.core.context import ContextState, Expected, Member
from vws.core.draft import Draft
from vws.core.dry_run import consider
from vws.core.errors import NotFound, VwsError
from vws.core.lifecycle import RESTING, UNORDERED, WAKING
from vws.core.members import member_name
from vws.core.site import DOMAIN, Answer, Changes, Cluster, Group, Lease, OnFailure, Role, Workspace
from vws.core.terms import LeaseRequest, When
from vws.faultpoints import reach
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.contexts import Contexts, ContextView
from vws.service.leases import Recording, unrecorded
from vws.service.naming import latest
from vws.service.once import Once
from vws.service.site import Site
from vws.service.usage import Usage

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 5.0
# Nothing should be missed; if it was, it is made up for.
LOOK_AT_ALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch is asked with. file: the cluster file's text; files: those that it names, by the path in it.
    given: values of its parameters. The others go before what the file says."""

    file: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    duration_s: int | None = None
    when: When | None = None
    start: int | None = None
    deadline: int | None = None
    ssh_keys: tuple[str, ...] = ()

    def read(self) -> tuple[ClusterFile, LeaseRequest]:
        """Raises InvalidRequest, naming the line."""
        found = read_cluster_file(self.file, self.files.__getitem__, self.given)
        if self.name is not None:
            found = renamed(found, self.name)
        asked = lease_request(
            found,
            duration_s=self.duration_s,
            ssh_keys=self.ssh_keys,
            when=self.when,
            start=self.start,
            deadline=self.deadline,
        )
        return found, asked

    @contextmanager
    def told_by_line(self) -> Iterator[None]:
        """What the site refuses of it names the line, as what the file itself has wrong does."""
        options = {"name": self.name, "duration_s": self.duration_s}
        try:
            yield
        except VwsError as error:
            told_by_line(error, self.file, [field for field, said in options.items() if said is not None])
            raise


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster with its leases, their workspaces, and its context; context None where there is none any more."""

    cluster: Cluster
    leases: tuple[Lease, ...]
    members: tuple[Workspace, ...]
    context: ContextView | None

    @property
    def stands(self) -> tuple[decisions.ClusterState, str]:
        return decisions.stands(self.cluster, self.leases, self.members, self._told)

    @property
    def _told(self) -> tuple[ContextState, str] | None:
        """The context's state and reason; it is not ready while it does not know that somebody is awake again, or has
        gone: those who stay have yet to hear of it."""
        if self.context is None:
            return None
        record, members = self.context.record, [status.member for status in self.context.members]
        known = [member.expected for member in members if member.left_at is None]
        gone = {w.id for w in self.members if w.state in UNORDERED}
        behind = any(member.start is None or member.workspace in gone for member in known)
        if behind and record.state is ContextState.READY:
            return ContextState.OPEN, ""
        return record.state, record.reason


class Clusters:
    def __init__(self, site: Site, contexts: Contexts, usage: Usage, recording: Recording = unrecorded) -> None:
        self._site = site
        self._recording = recording
        self._contexts = contexts
        self._usage = usage
        self._held_before = usage.spent_by_now
        self._moved = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._launching: set[str] = set()
        self._given_up: dict[str, set[str]] = {}  # by context, workspaces in whose place others were wanted
        self._touching = threading.Lock()
        self._touched: set[str] | None = None  # ids of clusters; None: all of them
        self._known: dict[str, frozenset[Expected]] = {}  # by context, the members that it was told of
        site.follow(self._follow)
        contexts.watch(self._hear)

    # ------------------------------------------------------------ asking

    def launch(self, caller: Caller, launch: Launch, once: Once | None = None) -> Cluster | Answer:
        """The cluster, or a refusal: InvalidRequest (with the line), NameTaken, LimitReached, CannotFit."""
        caller.must_be(Role.ADMIN, Role.USER)
        kept = self._site.store.answer(caller.subject, once.client_token) if once else None
        if once is not None and kept is not None:
            return once.check(kept)
        file, asked = launch.read()
        id = self._site.ids.new("cls")
        # The names that the network's own name server knows.
        spec = replace(file.context, domain=f"{file.name}.{DOMAIN}")
        self._launching.add(id)
        try:
            with launch.told_by_line():
                context = self._contexts.open(caller.subject, spec, file.expected(), keys=launch.ssh_keys, cluster=id)
            reach("service.cluster.opened")
            request = cluster_request(file, asked, context=context, text=launch.file)

            def decide(draft: Draft) -> Cluster:
                return decisions.launch(
                    draft, request, owner=caller.subject, ids=self._site.ids.new, id=id, before=self._held_before
                )

            with launch.told_by_line():
                launched: Cluster | Answer = self._recording(
                    caller, lambda: self._site.change(caller.subject, decide, once=once, subject=caller.subject)
                )
        finally:
            # The context of one that was refused, or had been launched by the same request, is closed by `catch_up`.
            self._launching.discard(id)
            self._touch([id])
            self._moved.set()
        reach("service.cluster.launched")
        return launched

    def would_fit(self, caller: Caller, launch: Launch) -> tuple[ClusterFile, dict[str, Any]]:
        """What the file describes, and what launching it would be answered now. Changes nothing."""
        caller.must_be(Role.ADMIN, Role.USER)
        file, asked = launch.read()
        request = cluster_request(file, asked, text=launch.file)
        decisions.check_cluster(request)
        with launch.told_by_line(), self._site.lock:
            draft = Draft(self._site.present, actor=caller.subject, now=self._site.clock.now())
            pools, ids = decisions.pools_meant(draft, request), self._site.ids.new
            alone = decisions.alone(request, pools)
            # In its own networks, as it would be launched: what an image may have is asked of them too.
            cluster = decisions.drawn_up(draft, request, pools, owner=caller.subject, ids=ids)
            alone = replace(alone, cluster=cluster.id)
            fit = consider(draft, alone, owner=caller.subject, ids=ids, before=self._held_before)
            lacking = decisions.lacking(draft, request, owner=caller.subject, ids=ids)
        if lacking is not None:
            fit |= {"fits": False, "reason": lacking.problem, "offers": list(lacking.details.get("offers", ()))}
        return file, fit | {"price": self._usage.estimate(alone, fit["start"], caller.subject)}

    # ------------------------------------------------------------ changing

    def grow(self, caller: Caller, id: str, group: str, count: int, once: Once | None = None) -> Cluster | Answer:
        def decide(draft: Draft, cluster: Cluster) -> None:
            decisions.grow(draft, cluster, group, count, ids=self._site.ids.new, before=self._held_before)

        return self._change(caller, id, decide, once)

    def shrink(self, caller: Caller, id: str, group: str, count: int, once: Once | None = None) -> Cluster | Answer:
        return self._change(caller, id, lambda draft, cluster: decisions.shrink(draft, cluster, group, count), once)

    def suspend(self, caller: Caller, id: str, once: Once | None = None) -> Cluster | Answer:
        return self._change(caller, id, decisions.suspend, once)

    def restore(self, caller: Caller, id: str, once: Once | None = None) -> Cluster | Answer:
        return self._change(caller, id, decisions.restore, once)

    def terminate(self, caller: Caller, id: str, once: Once | None = None) -> Cluster | Answer:
        return self._change(caller, id, decisions.terminate, once)

    def _change(
        self, caller: Caller, id: str, decide: Callable[[Draft, Cluster], object], once: Once | None
    ) -> Cluster | Answer:
        found = self.cluster(caller, id)

        def decided(draft: Draft) -> Cluster:
            present = draft.find_cluster(found.id) or self._site.store.get(Cluster, found.id)
            decide(draft, present)
            return draft.find_cluster(found.id) or present

        changed: Cluster | Answer = self._recording(
            caller, lambda: self._site.change(caller.subject, decided, once=once, subject=caller.subject)
        )
        return changed

    # ------------------------------------------------------------ looking

    def cluster(self, caller: Caller, id_or_name: str) -> Cluster:
        """By id or by name: the live one, else of the caller's own the one that was launched last. NotFound or
        Forbidden."""
        with self._site.lock:
            named = next((c for c in self._site.present.clusters.values() if c.name == id_or_name), None)
        found: Cluster | None = named or self._site.store.get(Cluster, id_or_name)
        found = found or latest(self._site.store, Cluster, _own(caller, Filter(name=id_or_name)))
        if found is None:
            raise NotFound(
                f"there is no cluster {id_or_name[:60]!r}",
                field="id",
                asked=id_or_name[:60],
                possible="vws cluster list --all",
            )
        caller.must_own(found.owner, f"the cluster {found.name}")
        return found

    def clusters(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._site.store.page(Cluster, _own(caller, where), after=after, limit=limit)

    def view(self, cluster: Cluster) -> ClusterView:
        with self._site.lock:
            leases = tuple(self._site.present.leases_of_cluster(cluster.id))
            members = tuple(w for lease in leases for w in self._site.present.members(lease.id))
        if cluster.ended_at is not None:
            leases = tuple(self._site.store.page(Lease, Filter(cluster=cluster.id), after=None, limit=1000).items)
        return self._with_context(cluster, leases, members)

    def view_in(self, cluster: Cluster, draft: Draft) -> ClusterView:
        """As it will be once the draft is committed."""
        leases = tuple(draft.leases_of_cluster(cluster.id))
        members = tuple(w for lease in leases for w in draft.members(lease.id))
        return self._with_context(draft.find_cluster(cluster.id) or cluster, leases, members)

    def _with_context(self, cluster: Cluster, leases: tuple[Lease, ...], members: tuple[Workspace, ...]) -> ClusterView:
        try:
            context = self._contexts.view(cluster.context)
        except NotFound:
            context = None
        return ClusterView(cluster, leases, members, context)

    # ------------------------------------------------------------ the context in step

    def start(self) -> None:
        """Tell contexts who comes and goes, in a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="clusters", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._moved.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        looked_at = time.monotonic()
        while not self._ended.is_set():
            self._moved.clear()
            if time.monotonic() > looked_at + LOOK_AT_ALL_S:
                self._touched, looked_at = None, time.monotonic()
            # As the reconciler: a loop that has ended would look well, and no cluster would ever be ready.
            try:
                self.catch_up()
            except Exception:
                log.exception("following clusters failed; it is tried again")
                self._touched = None
                self._ended.wait(1.0)
            self._moved.wait(LOOK_AGAIN_S)

    def _touch(self, ids: Iterable[str]) -> None:
        """These clusters are to be looked at."""
        with self._touching:
            if self._touched is not None:
                self._touched.update(filter(None, ids))

    def _follow(self, changes: Changes) -> None:
        """What the site has committed."""
        leases = {lease.id: lease for lease in changes.leases}
        present = self._site.present.leases
        of = (leases.get(w.lease) or present.get(w.lease) for w in changes.workspaces)
        touched = {lease.cluster for lease in (*leases.values(), *of) if lease is not None}
        touched.update(cluster.id for cluster in changes.clusters)
        if any(touched):
            self._touch(touched)
            self._moved.set()

    def _hear(self, contexts: frozenset[str]) -> None:
        """What guests said. Of that nothing is followed but failures."""
        touched = {self._contexts.failed_cluster(id) for id in contexts}
        if any(touched):
            self._touch(touched)
            self._moved.set()

    def catch_up(self) -> None:
        """Have the open contexts of all clusters that were touched expect exactly the members that these have."""
        with self._touching:
            touched, self._touched = self._touched, set()
        # What is being launched now is looked at before what has been: it may be done in between.
        launching = set(self._launching)
        with self._site.lock:
            present = self._site.present.clusters
            ids = present.keys() if touched is None else touched & present.keys()
            found = [(present[id], self._expected(present[id])) for id in ids]
            gone = None if touched is None else touched - present.keys() - launching
        for cluster, members in found:
            self._keep_in_step(cluster, members)
        if gone is None or gone:
            alive = {cluster.context for cluster, _ in found}
            for context, id in self._contexts.of_clusters().items():
                if id not in launching and (id in gone if gone is not None else context not in alive):
                    self._close(context)

    def _keep_in_step(self, cluster: Cluster, members: frozenset[Expected]) -> None:
        try:
            if self._known.get(cluster.context) != members:
                self._tell(cluster.context, members)
                self._known[cluster.context] = members
            self._mend(cluster)
        except VwsError as error:
            log.warning("the context %s is behind its cluster: %s; tried again soon", cluster.context, error)
            self._touch([cluster.id])

    def _close(self, context: str) -> None:
        self._contexts.close_context(context)
        self._known.pop(context, None)
        self._given_up.pop(context, None)

    def _tell(self, context: str, members: frozenset[Expected]) -> None:
        told = self._contexts.told_of(context)
        there = {member.name for member in members}
        gone = [member.name for member in told if member.left_at is None and member.name not in there]
        # Who left because he failed does not come back but as another workspace.
        left = {member.expected.workspace for member in told if member.left_at is not None}
        coming = members - self._known.get(context, frozenset())
        expect = sorted((m for m in coming if m.workspace not in left), key=lambda member: member.name)
        self._contexts.alter(context, expect=expect, leave=gone)

    def _mend(self, cluster: Cluster) -> None:
        """What a cluster's file says of members whose hooks ended badly, or that did not report in time."""
        if all(roles.on_failure is OnFailure.FAIL for roles in cluster.roles):
            return
        by: dict[OnFailure, list[Member]] = {}
        for member in self._contexts.failing(cluster.context):
            by.setdefault(cluster.roles_of(member.name.rpartition("-")[0]).on_failure, []).append(member)
        leaving = by.get(OnFailure.CONTINUE, [])
        if leaving:
            self._contexts.leave(cluster.context, *(member.name for member in leaving))
        given_up = self._given_up.setdefault(cluster.context, set())
        doomed = [m for m in by.get(OnFailure.REPLACE, []) if m.expected.workspace not in given_up]
        if doomed:
            reasons = {member.name: why(member) for member in doomed}
            self._site.change("site", lambda draft: decisions.give_up(draft, cluster, reasons))
            given_up.update(member.expected.workspace for member in doomed)

    def _expected(self, cluster: Cluster) -> frozenset[Expected]:
        present = self._site.present
        groups = {(lease.id, g.name): g for lease in present.leases_of_cluster(cluster.id) for g in lease.groups}
        there = [w for lease in present.leases_of_cluster(cluster.id) for w in present.members(lease.id)]
        asleep = self._asleep(cluster, there)
        return frozenset(
            _as_member(w, groups[w.lease, w.group], cluster, sleeps=w.id in asleep)
            for w in there
            if w.state not in UNORDERED
        )

    def _asleep(self, cluster: Cluster, there: Iterable[Workspace]) -> set[str]:
        """Who wakes together is awake when the last one is: else the others' hooks would run again for each of them."""
        asleep = {w.id for w in there if w.state in RESTING}
        if any(w.state in WAKING for w in there):
            slept = (m.workspace for m in self._known.get(cluster.context, ()) if m.start is None)
            asleep.update(slept)
        return asleep


def _as_member(workspace: Workspace, group: Group, cluster: Cluster, *, sleeps: bool) -> Expected:
    roles = cluster.roles_of(group.name)
    return Expected(
        member_name(group.name, workspace.number),
        roles.provides,
        roles.requires,
        group.networks,
        tuple(nic.address for nic in workspace.nics) or (workspace.address,),
        workspace.id,
        None if sleeps else 0.0,
    )


def why(member: Member) -> str:
    """Why a member has failed, in words."""
    bad = next((ran for ran in member.ran if ran.status), None)
    if bad is not None:
        return f"its hook {bad.hook} of {bad.role} ended with status {bad.status}"
    return member.late or "it did not do its part"


def _own(caller: Caller, where: Filter) -> Filter:
    return where if caller.is_admin else replace(where, owner=caller.subject)
