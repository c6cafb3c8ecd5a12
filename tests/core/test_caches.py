"""What nodes hold: told, remembered, asked for by administrators, and wanted for leases that are planned there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.builders import World, cached, file, image, node
from vws.core.agreement import cancel
from vws.core.cache_tasks import ask_clear, ask_prefetch, order_prefetches
from vws.core.caches import CacheContents, CachedFile, Cleared, FileState, KeptFile, TaskState
from vws.core.deployment import ClearOrder, orders_for
from vws.core.errors import CannotFit, Conflict, InvalidRequest
from vws.core.prefetch import AHEAD_S
from vws.core.present import Present
from vws.core.site import Lease
from vws.core.terms import GroupRequest, When

BASE = file("base", 300, "base")
DEMO = image(files=(file("demo"), BASE))
OTHER = image("other", files=(file("other", 200),))
N1 = "nod-001"


@pytest.fixture
def world() -> World:
    return World(node(1), node(2), images=(DEMO, OTHER))


def reserve(world: World, start_in_s: int, *groups: GroupRequest) -> Lease:
    start = int(world.now) + start_in_s
    return world.grant(*(groups or (on_n1("demo"),)), when=When.RESERVATION, start=start)


def on_n1(image: str, **fields: object) -> GroupRequest:
    return GroupRequest(image, requirement='name == "n1"', **fields)


def wanted(world: World, node: str = N1) -> list[str]:
    return [file.sha256 for file in world.present.prefetches.wanted(node, world.now)]


def generation(world: World, node: str = N1) -> int:
    return world.present.nodes[node].generation


def ids_of(*files: object) -> list[str]:
    return [file.sha256 for file in files]


# ---------------------------------------------------------------- told


def test_what_a_node_says_of_its_cache_is_on_record_once(world):
    world.report(N1, cache=cached(*DEMO.files, limit_bytes=1 << 30))
    kept = world.present.caches[N1]
    assert (kept.held, kept.limit_bytes, kept.reported_at) == ({f.sha256 for f in DEMO.files}, 1 << 30, world.now)
    before = len(world.history.events)
    world.now += 10
    world.report(N1, cache=cached(*DEMO.files, limit_bytes=1 << 30))
    world.report(N1)
    assert world.present.caches[N1] is kept, "the same again, or nothing, is no news"
    assert len(world.history.events) == before


@pytest.mark.parametrize(
    "said",
    [
        CacheContents(files=(CachedFile("../../etc/passwd", FileState.COMPLETE),)),
        CacheContents(files=(CachedFile("ab" * 32, FileState.COMPLETE, disk_bytes=-1),)),
        CacheContents(limit_bytes=-5),
        CacheContents(files=(CachedFile("ab" * 32, FileState.COMPLETE),) * 10_001),
    ],
)
def test_what_cannot_be_in_a_cache_is_not_believed(world, said):
    with pytest.raises(InvalidRequest):
        world.report(N1, cache=said)
    assert N1 not in world.present.caches


def test_a_file_that_was_altered_on_a_node_is_an_event_once(world):
    (held, *_) = cached(*DEMO.files).files
    altered = replace(held, altered_at=int(world.now) - 5)
    for told in (held, altered, replace(altered, used_at=7), replace(altered, altered_at=int(world.now))):
        world.report(N1, cache=CacheContents(1 << 30, files=(told,)))
    said = [e.data for e in world.history.events if e.kind == "node.cache-altered"]
    assert [each["found_at"] for each in said] == [int(world.now) - 5, int(world.now)]
    assert {(each["sha256"], each["role"]) for each in said} == {(held.sha256, held.role)}
    assert "fetched anew" in said[0]["reason"]


def test_what_a_node_says_is_plain_text(world):
    evil = CachedFile("ab" * 32, FileState.REFUSED, reason="\x1b[2Jno\n")
    world.report(N1, cache=CacheContents(files=(evil,)))
    assert world.present.caches[N1].files[0].reason == "[2Jno"


def test_an_image_goes_where_the_cache_can_hold_it_also_once_a_smaller_one_is_known(world):
    plain = world.grant(GroupRequest("demo", cpus=1))
    world.decide(cancel, plain)
    first = plain.plan.hosts[0]
    other = "nod-002" if first == N1 else N1
    later = world.grant(GroupRequest("demo"), when=When.BEST_EFFORT, duration_s=60)
    world.report(other, cache=CacheContents(limit_bytes=1 << 30))
    world.report(first, cache=CacheContents(limit_bytes=300 << 20))
    assert [world.grant(GroupRequest("demo")).plan.hosts for _ in range(2)] == [(other,)] * 2
    assert world.grant(GroupRequest("other"), name="small").plan.hosts == (first,)
    demand = world.present.outlook.planner.demands[later.id]
    assert demand.asks[0].eligible == [node.id == other for node in map(world.present.nodes.get, (N1, "nod-002"))]
    world.report(other, cache=CacheContents(limit_bytes=350 << 20))
    with pytest.raises(CannotFit) as refused:
        world.grant(GroupRequest("demo"))
    reasons = {each["node"]: each["reason"] for each in refused.value.details["nodes"]}
    assert reasons[first] == "its image cache holds 300 MiB at most, demo takes 400 MiB"
    assert "holds 350 MiB at most" in reasons[other]


# ---------------------------------------------------------------- wanted


def test_a_node_is_told_what_planned_leases_need_there_the_soonest_first_and_each_file_once(world):
    delta = image("delta", files=(file("delta", 5), BASE))
    world = World(node(1), node(2), images=(DEMO, OTHER, delta))
    reserve(world, 9000, on_n1("delta"), on_n1("other", name="o"))
    first = reserve(world, 3000)
    assert wanted(world) == ids_of(*DEMO.files, delta.files[0], *OTHER.files)
    assert wanted(world, "nod-002") == []
    before = generation(world)
    world.decide(order_prefetches)
    assert generation(world) == before + 1
    world.decide(order_prefetches)
    assert generation(world) == before + 1, "it was told"
    world.decide(cancel, world.present.leases[first.id])
    world.decide(order_prefetches)
    assert wanted(world) == ids_of(delta.files[0], BASE, *OTHER.files)
    assert generation(world) == before + 2


def test_what_a_node_holds_is_no_reason_to_tell_it_anew(world):
    world.report(N1, cache=cached(*DEMO.files))
    before = generation(world)
    reserve(world, 3000)
    world.decide(order_prefetches)
    assert (wanted(world), generation(world)) == (ids_of(*DEMO.files), before)
    world.report(N1, cache=cached(DEMO.files[0]))
    world.decide(order_prefetches)
    assert generation(world) == before + 1, "it has lost one of them"


def test_only_what_begins_within_a_day_is_fetched_and_no_more_than_fits(world):
    reserve(world, AHEAD_S + 7200)
    assert wanted(world) == []
    reserve(world, 3600, on_n1("other"))
    world.decide(order_prefetches)
    before = generation(world)
    world.now += 7200
    world.decide(order_prefetches)
    assert wanted(world) == ids_of(*OTHER.files, *DEMO.files)
    assert generation(world) > before
    world.report(N1, cache=CacheContents(limit_bytes=250 << 20))
    assert wanted(world) == ids_of(*OTHER.files)


def test_a_site_made_from_the_record_wants_the_same_and_tells_it_again(world):
    world.report(N1, cache=cached(DEMO.files[0]))
    reserve(world, 3000)
    world.decide(order_prefetches)
    again = World(images=())
    again.present, again.now = Present(), world.now
    again.present.apply(world.history, world.now)
    assert wanted(again) == wanted(world)
    assert again.present.prefetches.news(again.now) == [N1]


# ---------------------------------------------------------------- tasks


def asked(world: World, decision: object, *arguments: object) -> object:
    return world.decide(decision, f"cac-{len(world.history.events)}", world.present.nodes[N1], *arguments, actor="root")


def orders(world: World):
    cache = world.present.cache_of(N1)
    prefetch = world.present.prefetches.wanted(N1, world.now)
    return orders_for(world.present.nodes[N1], (), {}, {}, now=world.now, prefetch=prefetch, tasks=cache.due)


def test_a_prefetch_is_ordered_until_the_node_has_it(world):
    before = generation(world)
    task = asked(world, ask_prefetch, DEMO, "demo")
    assert generation(world) == before + 1
    assert [f.sha256 for f in orders(world).prefetch] == ids_of(*DEMO.files)
    assert asked(world, ask_prefetch, DEMO, "demo") == task, "asked for again it is the same"
    world.report(N1, cache=cached(DEMO.files[0]))
    assert world.present.cache_of(N1).due == (task,)
    world.report(N1, cache=cached(*DEMO.files))
    (over,) = world.present.cache_of(N1).tasks
    assert (over.state, over.ended_at) == (TaskState.DONE, world.now)
    assert orders(world).prefetch == ()
    said = [e for e in world.history.events if e.kind.startswith("node.prefetch")]
    assert [(e.kind, e.actor, e.node, e.image) for e in said] == [
        ("node.prefetch-asked", "root", N1, DEMO.id),
        ("node.prefetched", N1, N1, DEMO.id),
    ]
    assert asked(world, ask_prefetch, DEMO, "demo").state is TaskState.DONE, "it is there"


def test_a_prefetch_that_cannot_be_fails_with_the_nodes_reason(world):
    asked(world, ask_prefetch, DEMO, "demo")
    refused = CachedFile(BASE.sha256, FileState.REFUSED, reason="the node's image cache is full")
    contents = cached(DEMO.files[0])
    world.report(N1, cache=replace(contents, files=(*contents.files, refused)))
    (over,) = world.present.cache_of(N1).tasks
    assert (over.state, over.reason) == (TaskState.FAILED, "the node's image cache is full")
    assert world.history.events[-1].kind == "node.prefetch-failed"


def test_what_can_never_be_there_is_refused_at_once(world):
    world.report(N1, cache=CacheContents(limit_bytes=300 << 20))
    with pytest.raises(Conflict, match="demo takes 400 MiB, and the cache of n1 holds 300 MiB at most"):
        asked(world, ask_prefetch, DEMO, "demo")
    with pytest.raises(Conflict, match="simulated"):
        asked(world, ask_prefetch, image("sim"), "sim")
    assert world.present.cache_of(N1).tasks == ()


def test_a_clear_is_ordered_until_the_node_says_what_came_of_it_and_calls_prefetches_off(world):
    fetched = asked(world, ask_prefetch, DEMO, "demo")
    task = asked(world, ask_clear, DEMO, "demo")
    told = orders(world)
    assert (told.prefetch, told.clears) == ((), (ClearOrder(task.id, task.files),))
    kept = (KeptFile(BASE.sha256, "a workspace uses it"),)
    world.report(N1, cache=CacheContents(cleared=(Cleared(task.id, (DEMO.files[0].sha256,), 77, kept),)))
    called_off, over = world.present.cache_of(N1).tasks
    assert (called_off.id, called_off.state) == (fetched.id, TaskState.FAILED)
    assert "root has the cache cleared" in called_off.reason
    assert (over.state, over.freed_bytes, over.kept) == (TaskState.DONE, 77, kept)
    assert orders(world).clears == ()


def test_of_tasks_that_are_over_the_latest_are_remembered(world):
    for _ in range(40):
        task = asked(world, ask_clear, None, "")
        world.report(N1, cache=CacheContents(cleared=(Cleared(task.id),)))
    tasks = world.present.cache_of(N1).tasks
    assert len(tasks) == 17
    assert tasks[-1].id == task.id
