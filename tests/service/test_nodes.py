"""Nodes: joining once, one agent each, drained, silent, lost, removed."""

import threading
from dataclasses import replace

import pytest

from tests.service.conftest import ADMIN, ANN, CAPACITY
from vws.core.deployment import NodeReport, WorkspaceFact
from vws.core.errors import (
    CannotFit,
    DuplicateNode,
    Forbidden,
    InUse,
    InvalidRequest,
    NameTaken,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from vws.core.lifecycle import Observation
from vws.core.site import NodeState, Role
from vws.ports import Filter
from vws.service.access import Caller


def join(rig, name="n9", instance="inst-9"):
    _, text = rig.nodes.invite(ADMIN, 600)
    caller = rig.services.access.authenticate(text)
    return text, rig.nodes.join(caller, name, instance, "0.1.0")


def test_a_host_joins_once_by_its_token(rig):
    text, (node, token) = join(rig)
    assert rig.services.access.authenticate(token) == Caller(node.id, Role.NODE, token.split(".")[1])
    with pytest.raises(Unauthenticated, match="was used"):
        rig.services.access.authenticate(text)


def test_a_join_token_expires(rig):
    _, text = rig.nodes.invite(ADMIN, 600)
    rig.clock.time += 600
    with pytest.raises(Unauthenticated, match="expired"):
        rig.services.access.authenticate(text)


def test_a_token_that_joined_meanwhile_does_not_join_again(rig):
    _, text = rig.nodes.invite(ADMIN, 600)
    caller = rig.services.access.authenticate(text)
    rig.nodes.join(caller, "n1", "i", "0.1.0")
    with pytest.raises(Exception, match="used a moment ago"):
        rig.nodes.join(caller, "n2", "i", "0.1.0")
    assert len(rig.site.present.nodes) == 1


def test_each_node_has_a_name_and_a_subnet_of_its_own(rig):
    rig.enroll("n1", "n2")
    subnets = {n.subnet for n in rig.site.present.nodes.values()}
    assert len(subnets) == 2
    with pytest.raises(NameTaken):
        rig.nodes.enroll(["n1"])
    with pytest.raises(NameTaken):
        rig.nodes.enroll(["n3", "n3"])


def test_users_and_join_tokens_have_no_business_on_the_link(rig):
    (node,) = rig.enroll("n1")
    for caller in (ANN, ADMIN, Caller("nod-other", Role.NODE)):
        with pytest.raises(Forbidden):
            rig.nodes.orders(caller, node.id, "inst")
    with pytest.raises(Forbidden):
        rig.nodes.invite(ANN, 60)
    with pytest.raises(Forbidden):
        rig.nodes.drain(ANN, node.id)


def test_a_second_agent_is_refused_while_the_first_is_heard(rig):
    (node,) = rig.enroll("n1")
    caller = Caller(node.id, Role.NODE)
    with pytest.raises(DuplicateNode, match="another agent"):
        rig.nodes.orders(caller, node.id, "other instance")
    rig.clock.time += 16
    assert rig.nodes.orders(caller, node.id, "other instance").node == node.id
    with pytest.raises(DuplicateNode):
        rig.nodes.orders(caller, node.id, "inst")


def test_after_a_restart_of_the_service_the_first_agent_still_is_the_one(rig):
    _, (node, _) = join(rig, instance="inst")
    rig.report(node.id)
    rig.nodes.flush_heard()
    rig.restart()
    with pytest.raises(DuplicateNode):
        rig.nodes.orders(Caller(node.id, Role.NODE), node.id, "other")
    assert rig.nodes.orders(Caller(node.id, Role.NODE), node.id, "inst")


def test_an_overtaken_or_repeated_report_is_not_news(rig):
    (node,) = rig.enroll("n1")
    lease = rig.request()
    (w,) = rig.leases.members(lease.id)
    generation = rig.nodes.generation(node.id)

    def report(sequence, *facts):
        return NodeReport(node.id, "inst", 1, sequence, generation, 0.0, CAPACITY, workspaces=facts)

    running = report(100, WorkspaceFact(w.id, Observation.RUNNING, boots=1))
    assert rig.nodes.is_news(running)
    assert not rig.nodes.is_news(running)
    assert not rig.nodes.is_news(report(99))
    assert rig.nodes.is_news(report(101))


def test_reports_queue_up_and_are_committed_together(rig):
    nodes = rig.enroll(*(f"n{i}" for i in range(1, 9)))
    lease = rig.request(8)
    reconciler, answers = rig.services.reconciler, []
    before = rig.store.revision()
    reports = []
    for node in nodes:
        facts = tuple(
            WorkspaceFact(w.id, Observation.RUNNING, boots=1) for w in rig.leases.members(lease.id) if w.node == node.id
        )
        generation = rig.nodes.generation(node.id)
        reports.append(NodeReport(node.id, "inst", 1, 500, generation, 0.0, CAPACITY, workspaces=facts))

    def send(report):
        answers.append(reconciler.report(Caller(report.node, Role.NODE), report))

    threads = [threading.Thread(target=send, args=(report,)) for report in reports]
    for thread in threads:
        thread.start()
    while reconciler._queue.qsize() < 8:
        pass
    reconciler.start()
    for thread in threads:
        thread.join()
    reconciler.stop()
    assert len(answers) == 8
    assert rig.states(lease) == ["running"] * 8
    assert rig.store.revision() - before <= 2, "one commit for all of them"


def test_one_bad_report_does_not_keep_the_others_waiting(rig):
    first, second = rig.enroll("n1", "n2")
    lease = rig.request(2)
    reconciler = rig.services.reconciler
    facts = tuple(
        WorkspaceFact(w.id, Observation.RUNNING, boots=1) for w in rig.leases.members(lease.id) if w.node == first.id
    )
    good = NodeReport(first.id, "inst", 1, 500, rig.nodes.generation(first.id), 0.0, CAPACITY, workspaces=facts)
    bad = NodeReport(second.id, "inst", 1, 500, 1, 0.0, CAPACITY)
    results = {}

    def send(report):
        try:
            results[report.node] = reconciler.report(Caller(report.node, Role.NODE), report)
        except Exception as error:
            results[report.node] = error

    threads = [threading.Thread(target=send, args=(r,)) for r in (bad, good)]
    for thread in threads:
        thread.start()
    while reconciler._queue.qsize() < 2:
        pass
    # The node goes between the arrival of its report and its turn.
    rig.nodes.remove(ADMIN, second.id, force=True)
    reconciler.start()
    for thread in threads:
        thread.join()
    reconciler.stop()
    assert isinstance(results[second.id], NotFound)
    assert results[first.id] == rig.nodes.generation(first.id)


def test_who_gave_up_waiting_does_not_end_the_loop(rig):
    first, second = rig.enroll("n1", "n2")
    reconciler = rig.services.reconciler
    reports = [NodeReport(node.id, "inst", 1, 500, 1, 0.0, CAPACITY) for node in (first, second)]
    given_up, waiting = (reconciler.submit(Caller(r.node, Role.NODE), r) for r in reports)
    assert given_up.cancel()
    reconciler.start()
    assert waiting.result(10) == rig.nodes.generation(second.id)
    assert rig.services.health()["status"] == "ok"
    reconciler.stop()
    with pytest.raises(Unavailable, match="reports of nodes are not taken in"):
        rig.services.health()


def test_a_store_that_does_not_answer_fails_a_batch_at_once_and_the_next_report_is_taken(rig, monkeypatch):
    nodes = rig.enroll("n1", "n2", "n3")
    reconciler, asked = rig.services.reconciler, []

    def away(changes, expected):
        asked.append(changes)
        raise Unavailable("the store does not answer")

    reports = [NodeReport(node.id, "inst", 1, 500, 1, 0.0, CAPACITY, problem="no disk") for node in nodes]
    answers = [reconciler.submit(Caller(r.node, Role.NODE), r) for r in reports]
    with monkeypatch.context() as patched:
        patched.setattr(rig.site.store, "commit", away)
        reconciler.start()
        assert [type(answer.exception(10)) for answer in answers] == [Unavailable] * 3
        assert len(asked) == 1
    again = [reconciler.submit(Caller(r.node, Role.NODE), replace(r, sequence=501)) for r in reports]
    assert all(answer.result(10) for answer in again)
    reconciler.stop()
    assert {n.problem for n in rig.site.present.nodes.values()} == {"no disk"}


def test_health_tells_of_a_store_that_cannot_be_written(rig, monkeypatch):
    rig.enroll("n1")
    rig.services.reconciler.start()

    def full(*_, **__):
        raise Unavailable("the site's database could not be written: the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(rig.site.store, "commit", full)
        patched.setattr(rig.site.store, "heard", full)
        with pytest.raises(Unavailable):
            rig.request(1)
        with pytest.raises(Unavailable, match="the disk is full"):
            rig.services.health()
    rig.nodes.flush_heard()
    assert rig.services.health()["status"] == "ok"
    rig.services.reconciler.stop()


def test_a_capacity_that_cannot_be_is_refused_and_leases_go_on(rig):
    (node,) = rig.enroll("n1")
    with pytest.raises(InvalidRequest) as refused:
        rig.services.reconciler._absorb(
            [NodeReport(node.id, "inst", 1, 500, 1, 0.0, replace(CAPACITY, memory_mib=1 << 62))]
        )
    assert refused.value.field == "capacity.memory_mib"
    assert rig.request(1)


def test_what_a_killed_start_entered_is_given_anew_with_another_token(rig):
    ((lost, old_token),) = rig.nodes.enroll(["n1"])
    ((node, token),) = rig.nodes.enroll(["n1"])
    assert (node.id, node.subnet) == (lost.id, lost.subnet)
    assert rig.services.access.authenticate(token).subject == node.id
    with pytest.raises(Unauthenticated, match="revoked"):
        rig.services.access.authenticate(old_token)
    rig.report(node.id)
    with pytest.raises(NameTaken):
        rig.nodes.enroll(["n1"])


def test_nodes_are_replaced_all_or_none_and_a_repeat_does_no_harm(rig):
    first, second = rig.enroll("n1", "n2")
    rig.request(1)
    with pytest.raises(InUse):
        rig.nodes.enroll(["n1", "n3"], replacing=[first.id, second.id])
    assert set(rig.site.present.nodes) == {first.id, second.id}
    rig.leases.cancel(ANN, next(iter(rig.site.present.leases)))
    for node in (first, second):
        rig.report(node.id)
    for _ in range(2):
        made = [node for node, _ in rig.nodes.enroll(["n1", "n3"], replacing=[first.id, second.id])]
        assert {n.id for n in made} == set(rig.site.present.nodes)
        assert not {first.id, second.id} & set(rig.site.present.nodes)


def test_a_drained_node_takes_nothing_new_and_keeps_what_it_has(rig):
    (node,) = rig.enroll("n1")
    lease = rig.request()
    rig.obey()
    rig.nodes.drain(ADMIN, "n1")
    with pytest.raises(CannotFit):
        rig.request()
    rig.obey()
    assert rig.states(lease) == ["running"]
    assert rig.nodes.node(ADMIN, node.id).state is NodeState.DRAINED
    rig.nodes.undrain(ADMIN, "n1")
    rig.request()


def test_a_node_with_a_problem_takes_nothing_new(rig):
    (node,) = rig.enroll("n1")
    rig.report(node.id, problem="its clock is 600 s behind the service's")
    with pytest.raises(CannotFit) as refused:
        rig.request()
    assert "600 s behind" in refused.value.details["nodes"][0]["reason"]


def test_silence_is_counted_from_the_services_own_start(rig):
    (node,) = rig.enroll("n1")
    lease = rig.request()
    rig.obey()
    rig.nodes.flush_heard()
    rig.clock.time += 1000
    rig.restart()
    rig.services.reconciler.tick()
    assert rig.nodes.node(ADMIN, node.id).state is NodeState.READY
    rig.clock.time += 61
    rig.services.reconciler.tick()
    assert rig.nodes.node(ADMIN, node.id).state is NodeState.LOST
    assert rig.states(lease) == ["lost"] or lease.end <= rig.clock.time


def test_removing_a_node(rig):
    (node,) = rig.enroll("n1")
    rig.request()
    with pytest.raises(InUse, match="1 workspaces"):
        rig.nodes.remove(ADMIN, "n1")
    rig.nodes.remove(ADMIN, "n1", force=True)
    assert not rig.site.present.workspaces
    with pytest.raises(NotFound, match="removed"):
        rig.nodes.orders(Caller(node.id, Role.NODE), node.id, "inst")
    tokens = rig.services.access.tokens(ADMIN, Filter(), after=None, limit=10).items
    assert all(t.revoked_at for t in tokens if t.subject == node.id)
    rig.enroll("n1")


def test_a_consoles_end_is_kept_for_its_owner(rig):
    (node,) = rig.enroll("n1")
    lease = rig.request()
    (w,) = rig.leases.members(lease.id)
    caller = Caller(node.id, Role.NODE)
    rig.nodes.keep_console(caller, node.id, w.id, b"boot log")
    assert rig.nodes.kept_console(w.id) == b"boot log"
    for workspace in ("wsp-none", "../../etc/passwd"):
        with pytest.raises(NotFound):
            rig.nodes.keep_console(caller, node.id, workspace, b"x")
    with pytest.raises(NotFound):
        rig.nodes.keep_console(Caller("nod-x", Role.NODE), node.id, w.id, b"x")
