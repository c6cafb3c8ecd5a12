"""Clusters as the service keeps them: launched with their context, in step with it, and made up for after a kill."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest

from tests.service.conftest import ADMIN, ANN, BOB
from vws.core.cluster import ClusterState
from vws.core.context import Hook, Identity, Nic, Ran, Side
from vws.core.deployment import WorkspaceFact
from vws.core.errors import CannotFit, CommandRefused, Forbidden, InvalidRequest, NameTaken, NotFound
from vws.core.lifecycle import Observation
from vws.core.site import Cluster, Role
from vws.ports import Filter
from vws.service.access import Caller
from vws.service.clusters import Launch
from vws.service.once import Once

FILE = """
vws: cluster/1
name: pair
networks: {private: {range: 10.20.0.0/24}}
groups:
  node: {image: demo, count: 2, memory: 512MiB, networks: [private], provides: [peer], requires: [peer]}
lease: {for: 1h}
"""


class Clusters:
    """The rig's clusters, with the contexts' writer running."""

    def __init__(self, rig) -> None:
        self.rig = rig
        rig.enroll("n1")
        self.start()

    def start(self) -> None:
        self.services = self.rig.services
        self.services.contexts.start()
        self.clusters = self.services.clusters

    def stop(self) -> None:
        self.services.contexts.stop()

    def restart(self) -> None:
        self.stop()
        self.rig.restart()
        self.start()

    def launch(self, file: str = FILE, caller=ANN, once=None, **more) -> Cluster:
        return self.clusters.launch(caller, Launch(file, **more), once)

    def would_fit(self, file: str) -> object:
        return self.clusters.would_fit(ANN, Launch(file))

    def view(self, cluster: Cluster):
        self.clusters.catch_up()
        return self.clusters.view(self.services.site.store.get(Cluster, cluster.id))

    def expected(self, cluster: Cluster) -> list[str]:
        view = self.view(cluster)
        return sorted(s.member.name for s in view.context.members if s.member.left_at is None)


@pytest.fixture
def here(rig):
    found = Clusters(rig)
    yield found
    found.stop()


def test_the_members_of_a_cluster_are_expected_in_its_context_with_their_addresses(here):
    cluster = here.launch()
    view = here.view(cluster)
    assert view.stands[0] is ClusterState.LAUNCHING
    members = {s.member.name: s.member.expected for s in view.context.members}
    assert {name: e.addresses for name, e in members.items()} == {"node-1": ("10.20.0.2",), "node-2": ("10.20.0.3",)}
    assert {e.workspace for e in members.values()} == {w.id for w in view.members}
    here.rig.obey()
    assert here.view(cluster).stands == (ClusterState.CONFIGURING, ""), "it runs, but nobody has reported"


def test_a_node_is_told_how_its_guests_join(here):
    cluster = here.launch()
    (node,) = here.services.site.present.nodes.values()

    orders = here.services.nodes.orders(Caller(node.id, Role.NODE), node.id, "inst")
    assert [each.id for each in orders.networks] == [cluster.networks[0].id]
    secrets = {order.context.secret for order in orders.workspaces}
    assert len(secrets) == 2
    assert all(order.context.domain == "pair.vws.internal" for order in orders.workspaces)


def test_who_comes_and_goes_is_expected_and_left(here):
    cluster = here.launch()
    here.rig.obey()
    here.clusters.grow(ANN, "pair", "node", 1)
    here.rig.obey()
    assert here.expected(cluster) == ["node-1", "node-2", "node-3"]
    here.clusters.shrink(ANN, "pair", "node", 2)
    here.rig.obey()
    assert here.expected(cluster) == ["node-1"]
    here.clusters.terminate(ANN, "pair")
    here.rig.obey()
    view = here.view(cluster)
    assert view.stands[0] is ClusterState.ENDED
    assert not here.services.contexts.of_clusters(), "its context is closed"


def join(here, cluster: Cluster, name: str):
    """A member joins and says who it is; its guest."""
    contexts = here.services.contexts
    workspace = next(w for w in here.view(cluster).members if w.name == f"pair-{name}" and w.released_at is None)
    token = sha256(workspace.id.encode()).hexdigest()
    contexts.join(contexts.secret_of(workspace.id), sha256(token.encode()).hexdigest()).result(10)
    guest = contexts.authenticate(token)
    contexts.report(guest, Identity((Nic("private", workspace.address),))).result(10)
    return guest


def due(here, cluster: Cluster) -> list[str]:
    """Who is asked who he is."""
    return sorted(s.member.name for s in here.view(cluster).context.members if s.member.due)


def seen(here, cluster: Cluster, *observations: Observation) -> None:
    """What the node says of its workspaces, in their order."""
    there = zip(here.view(cluster).members, observations, strict=True)
    facts = [(w.node, WorkspaceFact(w.id, observation, boots=w.boots)) for w, observation in there]
    here.rig.report(facts[0][0], *(fact for _, fact in facts))


@pytest.mark.parametrize("restarted", [False, True])
def test_who_slept_is_asked_anew_once_all_that_wake_are_awake(here, restarted):
    cluster = here.launch()
    here.rig.obey()
    for name in ("node-1", "node-2"):
        join(here, cluster, name)
    assert due(here, cluster) == []
    here.clusters.suspend(ANN, "pair")
    here.view(cluster)
    here.rig.obey(Observation.SUSPENDED)
    if restarted:
        here.restart()
    assert here.view(cluster).stands[0] is ClusterState.SUSPENDED
    assert due(here, cluster) == []
    here.clusters.restore(ANN, "pair")
    seen(here, cluster, Observation.RUNNING, Observation.SUSPENDED)
    assert due(here, cluster) == [], "the other one still sleeps"
    seen(here, cluster, Observation.RUNNING, Observation.RUNNING)
    assert here.clusters.view(cluster).stands == (ClusterState.CONFIGURING, ""), "before the context knows"
    assert due(here, cluster) == ["node-1", "node-2"]


def test_a_refused_launch_leaves_no_open_context(here):
    wide = FILE.replace("count: 2", "count: 200")
    with pytest.raises(CannotFit):
        here.launch(wide)
    here.clusters.catch_up()
    assert not here.services.contexts.of_clusters()
    assert here.launch(), "and its name is free"


def test_what_a_kill_left_half_done_is_made_up_for(here, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(point: str) -> None:
        if point == "service.cluster.opened":
            raise Killed

    monkeypatch.setattr("vws.service.clusters.reach", killed)
    with pytest.raises(Killed):
        here.launch()
    assert list(here.services.contexts.of_clusters()), "the context is there, the cluster is not"
    monkeypatch.undo()
    here.restart()
    here.clusters.catch_up()
    assert not here.services.contexts.of_clusters()
    cluster = here.launch()
    here.restart()
    assert here.expected(cluster) == ["node-1", "node-2"], "members that nobody had told of before the kill"


def test_a_repeat_under_the_same_client_token_launches_nothing(here):

    once = Once("token-1", "fingerprint", 201, lambda result: "{}")
    here.launch(once=once)
    answer = here.launch(once=once)
    assert answer.status == 201
    assert len(here.services.site.present.clusters) == 1


def test_a_cluster_is_its_owners(here):
    cluster = here.launch()
    for call in (here.clusters.suspend, here.clusters.terminate, here.clusters.cluster):
        with pytest.raises(Forbidden):
            call(BOB, "pair")
    with pytest.raises(NotFound):
        here.clusters.cluster(ANN, "nothing")
    assert not here.clusters.clusters(BOB, Filter(), after=None, limit=10).items
    assert here.clusters.clusters(ADMIN, Filter(), after=None, limit=10).items[0].id == cluster.id


def test_a_wrong_file_is_refused_by_its_line(here):
    with pytest.raises(InvalidRequest, match="line 6"):
        here.launch(FILE.replace("count: 2", "cuont: 2"))
    file, fit = here.clusters.would_fit(ANN, Launch(FILE, name="other"))
    assert (file.name, fit["fits"]) == ("other", True)
    assert not here.services.site.present.clusters


@pytest.mark.parametrize(
    ("change", "error", "at", "field"),
    [
        (("image: demo", "image: deom"), InvalidRequest, (6, 10), "groups.node.image"),
        (("{range: 10.20.0.0/24}", "{pool: campus}"), InvalidRequest, (4, 22), "networks.private.pool"),
        (("requires: [peer]", "requires: [peer, vo:keys]"), InvalidRequest, (6, 88), "groups.node.requires"),
        (("name: pair", "name: held"), NameTaken, (3, 1), "name"),
    ],
)
def test_what_only_the_site_knows_is_refused_by_its_line_too(here, change, error, at, field):
    here.launch(FILE.replace("name: pair", "name: held"))
    # A dry run opens no context, which is what has a name and knows what a site tells.
    asking = [here.launch] if field in ("name", "groups.node.requires") else [here.launch, here.would_fit]
    for ask in asking:
        with pytest.raises(error, match=f"^line {at[0]}, column {at[1]}: ") as refused:
            ask(FILE.replace(*change))
        assert refused.value.field == field
        assert (refused.value.details["line"], refused.value.details["column"]) == at


def test_what_the_launch_says_has_no_line(here):
    here.launch()
    with pytest.raises(NameTaken, match=r"^the name pair is taken"):
        here.launch(FILE.replace("name: pair", "name: other"), name="pair")


def test_of_ended_clusters_the_last_of_a_name_is_found(here):
    first, second = None, None
    for _ in range(2):
        first, second = second, here.launch()
        here.rig.obey()
        here.clusters.terminate(ANN, "pair")
        here.rig.obey()
        assert here.view(second).stands[0] is ClusterState.ENDED
    assert first.id != second.id
    assert here.clusters.cluster(ANN, "pair").id == second.id
    assert here.clusters.cluster(ADMIN, "pair").id == second.id
    with pytest.raises(NotFound):
        here.clusters.cluster(BOB, "pair")
    with pytest.raises(CommandRefused, match="pair has ended"):
        here.clusters.grow(ANN, "pair", "node", 1)
    third = here.launch()
    assert here.clusters.cluster(ANN, "pair").id == third.id


def fail(here, cluster: Cluster, name: str) -> None:
    """A member joins, reports, and its hook ends badly."""
    guest = join(here, cluster, name)
    here.services.contexts.ended(guest, Ran("peer", Side.PROVIDER, Hook.ON_JOINED, 1, 3), b"no such file").result(10)


@pytest.mark.parametrize(
    ("on_failure", "state"),
    [("fail", ClusterState.FAILED), ("continue", ClusterState.CONFIGURING), ("replace", ClusterState.CONFIGURING)],
)
def test_what_becomes_of_a_member_whose_hook_ends_badly_is_the_files_to_say(here, on_failure, state):
    file = FILE.replace("requires: [peer]}", f"requires: [peer], on-failure: {on_failure}}}")
    file += "roles: {peer: {provider: {hooks: {on-joined: run.sh}}}}\n"
    cluster = here.launch(file, files={"run.sh": b"#!/bin/sh\nexit 3\n"})
    here.rig.obey()
    before = {w.id for w in here.view(cluster).members}
    fail(here, cluster, "node-2")
    view = here.view(cluster)
    view = here.view(cluster)
    assert view.stands[0] is state, view.stands
    if on_failure == "fail":
        assert "node-2" in view.stands[1]
    if on_failure == "continue":
        assert here.expected(cluster) == ["node-1"]
        here.restart()
        assert here.expected(cluster) == ["node-1"], "nor after a restart"
    if on_failure == "replace":
        here.rig.obey()
        here.rig.obey()
        made = {w.id for w in here.view(cluster).members if w.released_at is None} - before
        assert len(made) == 1
        assert here.expected(cluster) == ["node-1", "node-2"]


def test_only_clusters_that_a_commit_touched_are_looked_at(here, monkeypatch):
    names = [f"pair-{number}" for number in range(3)]
    launched = {name: here.launch(name=name) for name in names}
    here.clusters.catch_up()
    looked: list[str] = []
    expected = type(here.clusters)._expected

    def counted(self, cluster):
        looked.append(cluster.name)
        return expected(self, cluster)

    monkeypatch.setattr(type(here.clusters), "_expected", counted)
    monkeypatch.setattr(here.services.contexts, "view", None)  # never for this
    here.rig.request()
    here.clusters.catch_up()
    assert looked == []
    here.clusters.shrink(ANN, "pair-1", "node", 1)
    here.clusters.catch_up()
    assert looked == ["pair-1"]
    here.clusters.terminate(ANN, "pair-2")
    here.clusters.catch_up()
    assert looked == ["pair-1", "pair-2"]
    here.rig.obey()
    looked.clear()
    here.clusters.catch_up()
    assert sorted(looked) == ["pair-0", "pair-1"], "all have moved, and pair-2 has ended"
    assert not here.services.contexts.is_open(launched["pair-2"].context)
    assert here.services.contexts.is_open(launched["pair-1"].context)
    with pytest.raises(InvalidRequest):
        here.launch(FILE.replace("image: demo", "image: none"), name="pair-9")
    here.clusters.catch_up()
    open_now = set(here.services.contexts.of_clusters().values())
    assert open_now == {launched["pair-0"].id, launched["pair-1"].id}, "the refused launch left none"


def test_a_cluster_is_not_ready_before_those_who_stay_have_heard_who_is_gone(here):
    cluster = here.launch()
    here.rig.obey()
    here.view(cluster)
    guests = [join(here, cluster, name) for name in ("node-1", "node-2")]
    for guest in guests:
        here.services.contexts.heard(guest, here.view(cluster).context.record.version)
    deadline = time.monotonic() + 10
    while here.view(cluster).stands[0] is not ClusterState.READY:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    here.clusters.shrink(ANN, "pair", "node", 1)
    present = here.services.site.store.get(Cluster, cluster.id)
    assert here.clusters.view(present).stands[0] is ClusterState.CONFIGURING, "nobody has been told of it yet"
