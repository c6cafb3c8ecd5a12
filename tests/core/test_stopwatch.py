"""How long steps took, read off the events that a site's own decisions write."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.builders import World, node
from vws.core.agreement import cancel, command
from vws.core.deployment import WorkspaceFact
from vws.core.lifecycle import Command, Observation
from vws.core.rates import Observation as Seen
from vws.core.rates import Step
from vws.core.standing import Patience, listen
from vws.core.stopwatch import Stopwatch
from vws.core.terms import GroupRequest

O = Observation  # noqa: E741


def site(count=1, nodes=1, memory_mib=512):
    world = World(*(node(n, cpus=8, hypervisor="tcg") for n in range(1, nodes + 1)))
    return world, world.grant(GroupRequest("demo", count=count, memory_mib=memory_mib))


def pass_time(world, seconds, state, **fields):
    """All nodes report this state of all that they have after so many seconds."""
    world.now += seconds
    for each in list(world.present.nodes.values()):
        report(world, each.id, *[(w, state) for w in world.present.on_node(each.id)], **fields)


def report(world, node_id, *facts, **fields):
    world.report(node_id, *(WorkspaceFact(w.id, state, boots=w.boots, **fields) for w, state in facts))


def order(world, lease, what):
    for workspace in world.members(lease):
        world.decide(command, workspace, what)


def seen(world):
    return list(Stopwatch().hear(world.history.events))


def took(world, step):
    return [(o.seconds, o.mib) for o in seen(world) if o.step is step]


def test_a_life_tells_of_each_of_its_steps():
    world, lease = site()
    pass_time(world, 1, O.STAGING)
    pass_time(world, 4, O.STARTING, fetched_mib=400)
    pass_time(world, 9, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    pass_time(world, 12, O.SUSPENDED)
    order(world, lease, Command.RESTORE)
    pass_time(world, 8, O.RUNNING)
    world.decide(cancel, world.lease(lease.id))
    world.now += 2
    world.obey()
    assert seen(world) == [
        Seen(Step.ENACT, 1.0, 0, "tcg", "img-demo"),
        Seen(Step.STAGE, 4.0, 400, "tcg", "img-demo"),
        Seen(Step.BOOT, 9.0, 0, "tcg", "img-demo"),
        Seen(Step.SUSPEND, 12.0, 512, "tcg", "img-demo"),
        Seen(Step.RESUME, 8.0, 512, "tcg", "img-demo"),
        Seen(Step.SHUTDOWN, 2.0, 0, "tcg", "img-demo"),
    ]


def test_staging_without_a_download_is_the_making_of_the_disk():
    world, _ = site()
    pass_time(world, 0, O.STAGING)
    pass_time(world, 3, O.STARTING)
    assert (took(world, Step.CREATE), took(world, Step.STAGE)) == ([(3.0, 0)], [])


def test_what_is_saved_side_by_side_on_a_node_is_one_observation():
    world, lease = site(count=3)
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    first, second, third = world.members(lease)
    world.now += 10
    report(world, "nod-001", (first, O.SUSPENDED), (second, O.RUNNING), (third, O.RUNNING))
    assert took(world, Step.SUSPEND) == []
    world.now += 20
    report(world, "nod-001", (first, O.SUSPENDED), (second, O.SUSPENDED), (third, O.SUSPENDED))
    assert took(world, Step.SUSPEND) == [(30.0, 3 * 512)]


def test_nodes_are_observed_apart():
    world, lease = site(count=12, nodes=2)
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    pass_time(world, 20, O.SUSPENDED)
    here = [sum(512 for w in world.members(lease) if w.node == n) for n in ("nod-001", "nod-002")]
    assert sorted(took(world, Step.SUSPEND)) == sorted((20.0, mib) for mib in here)


def test_the_way_of_an_order_is_shared_by_the_members():
    world, _ = site(count=4)
    pass_time(world, 2, O.STAGING)
    assert took(world, Step.ENACT) == [(0.5, 0)]


def test_a_step_that_ends_otherwise_tells_nothing():
    world, lease = site(count=2)
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    first, second = world.members(lease)
    world.now += 5
    report(world, "nod-001", (first, O.SUSPENDED), (second, O.STOPPED))
    assert took(world, Step.SUSPEND) == []


@pytest.mark.parametrize("silent_s", [30.0, 100.0])
def test_what_a_silent_node_did_tells_nothing(silent_s):
    world, lease = site()
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    world.now += silent_s
    world.decide(listen, {"nod-001": silent_s}, Patience())
    pass_time(world, 5, O.SUSPENDED)
    assert took(world, Step.SUSPEND) == []
    order(world, lease, Command.RESTORE)
    pass_time(world, 5, O.RUNNING)
    assert took(world, Step.RESUME) == [(5.0, 512)], "but what it does afterwards tells again"


def test_a_reboot_is_no_boot():
    world, lease = site()
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.REBOOT)
    pass_time(world, 20, O.STARTING)
    pass_time(world, 20, O.RUNNING)
    assert took(world, Step.BOOT) == []


def test_nothing_is_learned_of_a_node_that_does_not_say_what_it_is():
    world = World(node(1))
    world.grant()
    pass_time(world, 1, O.STARTING)
    pass_time(world, 1, O.RUNNING)
    assert seen(world) == []


def test_an_interruption_forgets_what_is_under_way():
    world, lease = site()
    pass_time(world, 1, O.RUNNING)
    order(world, lease, Command.SUSPEND)
    watch = Stopwatch()
    list(watch.hear(world.history.events))
    watch.interrupt()
    done = len(world.history.events)
    pass_time(world, 500, O.SUSPENDED)
    assert list(watch.hear(world.history.events[done:])) == []


@given(st.integers(1, 4), st.lists(st.integers(0, 30), min_size=6, max_size=6), st.integers(0, 200))
def test_events_in_pieces_tell_what_they_tell_at_once_and_nothing_is_kept(count, pauses, cut):
    world, lease = site(count=count, nodes=2)
    pass_time(world, pauses[0], O.STAGING)
    pass_time(world, pauses[1], O.STARTING, fetched_mib=100)
    pass_time(world, pauses[2], O.RUNNING)
    order(world, lease, Command.SUSPEND)
    pass_time(world, pauses[3], O.SUSPENDED)
    order(world, lease, Command.RESTORE)
    pass_time(world, pauses[4], O.RUNNING)
    world.decide(cancel, world.lease(lease.id))
    world.now += pauses[5]
    world.obey()
    events = world.history.events
    watch = Stopwatch()
    in_pieces = [*watch.hear(events[:cut]), *watch.hear(events[cut:])]
    assert in_pieces == seen(world)
    assert replace(in_pieces[0], seconds=0) == Seen(Step.ENACT, 0, 0, "tcg", "img-demo")
    assert (watch._begun, watch._batches, watch._ordered) == ({}, {}, {})
