"""Offers: whatever is refused, what is offered instead is granted if it is asked for right then."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.core.builders import World, image, node
from tests.core.test_kinds import follow
from tests.soaking import on_seeds
from vws.core import agreement, amendment, offers
from vws.core.bargain import last
from vws.core.chosen import Chosen
from vws.core.draft import Draft
from vws.core.dry_run import consider
from vws.core.enactment import settle_plan
from vws.core.errors import CannotFit, LimitReached, VwsError
from vws.core.maintenance import plan_maintenance
from vws.core.membership import VO, Limits, Membership, User
from vws.core.site import LeaseState
from vws.core.terms import Exceptions, GroupRequest, LeaseRequest, When

IMAGES = (image(), image("big", memory_mib_min=300, disk_mib_min=50))


def some_limits(random: Random) -> Limits:
    return Limits(
        concurrent=random.choice([None, None, 2, 4]),
        total=random.choice([None, None, 3, 6]),
        ahead_s=random.choice([None, None, 300, 900]),
        node_hours=random.choice([None, None, 1.5, 4]),
    )


def some_policy(random: Random) -> Chosen:
    """Limits of ann, and of a VO which she shares with bob."""
    return Chosen(
        membership=Membership(
            {"atlas": VO(("ann", "bob"), limits=some_limits(random))}, users={"ann": User(limits=some_limits(random))}
        )
    )


def some_world(random: Random, chosen: Chosen | None = None) -> World:
    nodes = [
        node(
            number,
            cpus=random.randint(2, 6),
            memory_mib=random.choice([1000, 2000, 4000, 4000]),
            disk_mib=random.choice([500, 5000]),
            cpu_ratio=random.choice([1.0, 1.0, 2.0]),
            overhead_mib=random.choice([0, 0, 50]),
            drained=random.random() < 0.05,
            labels=random.choice([(), ("gpu",)]),
        )
        for number in range(1, random.randint(2, 5))
    ]
    world = World(*nodes, images=IMAGES, chosen=chosen)
    for each in nodes:
        if random.random() < 0.2:
            start = int(world.now) + random.randint(0, 2000)
            world.decide(
                plan_maintenance, each, id=f"mnt-{each.id}", start=start, duration_s=random.randint(1, 900), reason="x"
            )
    for _ in range(random.randint(0, 10)):
        try:
            world.decide(agreement.grant, some_request(random, world), owner="bob", ids=world.ids)
        except VwsError:
            pass
        world.tick(random.choice([0, 1, 30, 200]))
        if random.random() < 0.8:
            follow(world)
    for _ in range(3):  # what is overdue is done
        world.tick(1)
        follow(world)
    return world


def some_request(random: Random, world: World) -> LeaseRequest:
    groups = tuple(some_group(random, f"g{i}") for i in range(random.choice([1, 1, 1, 2])))
    duration_s = random.choice([1, 60, 200, 1000, 5000])
    now = int(world.now)
    when = random.choice([When.IMMEDIATE, When.IMMEDIATE, When.RESERVATION, When.BEST_EFFORT, When.DEADLINE])
    request = LeaseRequest(groups, duration_s, when=when, preemptible=random.random() < 0.5)
    if when is When.RESERVATION:
        return replace(request, start=now + random.randint(0, 1500))
    if when is When.DEADLINE:
        return replace(request, deadline=now + duration_s + random.randint(0, 1500))
    if when is When.BEST_EFFORT:
        return replace(request, restartable=random.random() < 0.5)
    return replace(request, urgent=random.random() < 0.3)


def some_group(random: Random, name: str) -> GroupRequest:
    place = random.choice(["", "", "", "apart", "together"])
    return GroupRequest(
        random.choice(["demo", "demo", "big"]),
        count=random.choice([1, 1, 2, 3, 5]),
        cpus=random.choice([1, 1, 2, 2, 3, 5]),
        memory_mib=random.choice([300, 400, 900]),
        disk_mib=random.choice([50, 150, 1000]),
        name=name,
        requirement=random.choice(["", "", "", "", '"gpu" in labels']),
        apart=place == "apart",
        together=place == "together",
    )


def taken(request: LeaseRequest, offer: dict) -> LeaseRequest:
    """The request that takes an offer: each kind has the parts of a request that it names, a combined one several."""
    if offer["kind"] == "now":
        return replace(request, when=When.IMMEDIATE, start=None)
    if offer["kind"] == "exceptions":
        return replace(request, exceptions=Exceptions.SKIP)
    assert offer.keys() & {"count", "duration_s", "start", "deadline"}, f"nobody can take {offer}"
    if "count" in offer:
        assert len(request.groups) == 1 or "group" in offer
        named = offer.get("group", request.groups[0].name)
        size = {name: offer[name] for name in ("count", "cpus", "memory_mib", "disk_mib") if name in offer}
        groups = (replace(group, **size) if group.name == named else group for group in request.groups)
        request = replace(request, groups=tuple(groups))
    if "start" in offer:
        request = replace(request, when=When.RESERVATION, start=offer["start"])
    changed = {name: offer[name] for name in ("duration_s", "deadline") if name in offer}
    return replace(request, **changed)


def would_be_granted(world: World, request: LeaseRequest) -> None:
    """Ask in earnest, and forget it."""
    draft = Draft(world.present, actor="ann", now=world.now)
    try:
        agreement.grant(draft, request, owner="ann", ids=world.ids, before=held_before)
        settle_plan(draft, world.ids)
    finally:
        world.present.plan_anew(world.now)


def held_before(user: str, since: float) -> float:
    return {"ann": 1.0, "bob": 0.5}[user]


def refusal(world: World, request: LeaseRequest) -> CannotFit | LimitReached | None:
    try:
        would_be_granted(world, request)
    except (CannotFit, LimitReached) as refused:
        return refused
    return None


@on_seeds(100, 300, 10269)
def test_every_offer_is_granted_when_it_is_asked_for(seed):
    random = Random(seed)
    every_offer_is_granted(random, some_world(random))


@on_seeds(100, 300)
def test_every_offer_is_granted_where_there_are_limits(seed):
    random = Random(seed)
    every_offer_is_granted(random, some_world(random, some_policy(random)))


def every_offer_is_granted(random: Random, world: World) -> None:
    for _ in range(4):
        request = some_request(random, world)
        before = world.present.outlook.sketch()
        refused = refusal(world, request)
        offers = [] if refused is None else refused.details["offers"]
        assert world.present.outlook.sketch() == before
        for offer in offers:
            assert offer["text"] in refused.possible
            again = taken(request, offer)
            assert again != request
            try:
                would_be_granted(world, again)
            except VwsError as error:
                raise AssertionError(f"{offer} was offered, but {error.problem}") from error


@on_seeds(66, 200)
def test_asking_before_asking_is_answered_as_asking(seed):
    random = Random(seed)
    world = some_world(random)
    for _ in range(4):
        request = some_request(random, world)
        before = world.present.outlook.sketch()
        draft = Draft(world.present, actor="ann", now=world.now)
        answer = consider(draft, request, owner="ann", ids=world.ids, before=held_before)
        assert world.present.outlook.sketch() == before, "asking changes nothing"
        refused = refusal(world, request)
        assert answer["fits"] == (refused is None)
        if refused is not None:
            assert answer["reason"] == refused.problem
            assert answer["offers"] == refused.details["offers"]


def prepare_s(world: World, request: LeaseRequest) -> int:
    images = [world.present.images[f"img-{group.image}"] for group in request.groups]
    draft = Draft(world.present, actor="ann", now=world.now)
    lease = agreement.draw_up(draft, request, images, "ann", "lse-asked")
    return world.present.outlook.prepare_s(lease)


@on_seeds(66, 200)
def test_no_nearer_offer_would_be_granted(seed):
    random = Random(seed)
    world = some_world(random)
    for _ in range(4):
        request = some_request(random, world)
        refused = refusal(world, request)
        if refused is None or request.when in (When.BEST_EFFORT, When.DEADLINE) or request.urgent:
            continue
        found = {offer["kind"]: offer for offer in refused.details["offers"]}
        (group, *others), now = request.groups, int(world.now)
        if "later" in found:
            first = max(request.start or now, now + prepare_s(world, request) + 61)
            for start in random.sample(
                range(first, found["later"]["start"]), max(0, min(5, found["later"]["start"] - first))
            ):
                assert refusal(world, taken(request, {"kind": "later", "start": start}))
        if not others and group.count > 1:
            count = found["fewer"]["count"] if "fewer" in found else 0
            more = range(count + 1, group.count)
            assert all(refusal(world, taken(request, {"kind": "fewer", "count": each})) for each in more)
        spare_s = 60 if request.start is None else 0
        longest = found["shorter"]["duration_s"] if "shorter" in found else 60
        if longest + spare_s + 1 < request.duration_s:
            longer = {"kind": "shorter", "duration_s": longest + spare_s + 1}
            assert refusal(world, taken(request, longer))


@on_seeds(50, 150)
def test_as_much_longer_as_is_offered_is_granted(seed):
    random = Random(seed)
    world = some_world(random)
    for lease in list(world.present.leases.values()):
        if lease.state is LeaseState.ENDING:
            continue
        try:
            asking(world, amendment.extend, lease, 5000)
        except CannotFit as refused:
            for offer in refused.details["offers"]:
                asking(world, amendment.extend, lease, offer["duration_s"])


@on_seeds(33, 100)
def test_as_much_longer_as_is_offered_is_granted_where_there_are_limits(seed):
    random = Random(seed)
    limits = Limits(concurrent=random.choice([None, 3]), node_hours=random.choice([2, 5]))
    world = some_world(random, Chosen(membership=Membership(each_user=limits)))
    world.present.plan_anew(world.now)
    for lease in list(world.present.leases.values()):
        if lease.state is LeaseState.ENDING:
            continue
        try:
            asking(world, amendment.extend, lease, 9000, held_before)
        except (CannotFit, LimitReached) as refused:
            most_s = max((offer["duration_s"] for offer in refused.details["offers"]), default=0)
            if most_s:
                asking(world, amendment.extend, lease, most_s, held_before)
            with pytest.raises((CannotFit, LimitReached)):
                asking(world, amendment.extend, lease, most_s + 1, held_before)


def test_what_was_held_before_counts_when_a_lease_is_to_be_longer():
    world = World(node(1), chosen=Chosen(membership=Membership(each_user=Limits(node_hours=4))))
    lease = world.grant(duration_s=3600)
    with pytest.raises(LimitReached, match="has or had 1 and asks for 4") as refused:
        asking(world, amendment.extend, lease, 3 * 3600, held_before)
    assert refused.value.details["offers"] == [{"kind": "shorter", "duration_s": 7200, "text": "2h longer would fit"}]
    asking(world, amendment.extend, lease, 7200, held_before)


def asking(world: World, decision, *arguments: object) -> None:
    """Decide, and forget it."""
    draft = Draft(world.present, actor="ann", now=world.now)
    try:
        decision(draft, *arguments)
    finally:
        world.present.plan_anew(world.now)


def test_a_series_may_be_had_without_its_exceptions():
    world = World(node(1))
    start = int(world.now) + 7200
    world.grant(GroupRequest("demo", cpus=4), duration_s=3600, when=When.RESERVATION, start=start + 86_400)
    series = LeaseRequest(
        (GroupRequest("demo", cpus=4),), 3600, when=When.PERIODIC, rule="FREQ=DAILY;COUNT=3", start=start
    )
    refused = refusal(world, series)
    (offer,) = refused.details["offers"]
    assert (offer["kind"], offer["count"]) == ("exceptions", 2)
    assert [each["start"] for each in offer["skipped"]] == [start + 86_400]
    answer = consider(Draft(world.present, actor="ann", now=world.now), series, owner="ann", ids=world.ids)
    assert (answer["fits"], answer["offers"], answer["start"]) == (False, [offer], start)
    without = taken(series, offer)
    would_be_granted(world, without)
    answer = consider(Draft(world.present, actor="ann", now=world.now), without, owner="ann", ids=world.ids)
    assert answer["fits"]


def test_a_series_is_offered_with_fewer_or_shorter_instances():
    world = World(node(1))
    start = int(world.now) + 7200
    other = GroupRequest("demo", cpus=2)
    other = world.grant(other, duration_s=3600, when=When.RESERVATION, start=start + 86_400 + 1800)
    group = GroupRequest("demo", count=3)
    series = LeaseRequest((group,), 3600, when=When.PERIODIC, rule="FREQ=DAILY;COUNT=3", start=start)
    offers = {offer["kind"]: offer for offer in refusal(world, series).details["offers"]}
    assert offers["fewer"]["count"] == 2
    assert offers["shorter"]["duration_s"] == other.plan.begin - start - 86_400
    for offer in offers.values():
        would_be_granted(world, taken(series, offer))


def test_a_limit_on_a_series_is_kept_by_what_is_offered():
    world = World(node(1), chosen=Chosen(membership=Membership(each_user=Limits(node_hours=5))))
    rule = {"when": When.PERIODIC, "rule": "FREQ=DAILY;COUNT=4", "start": int(world.now) + 7200}
    series = LeaseRequest((GroupRequest("demo", count=2),), 3600, **rule)
    refused = refusal(world, series)
    assert "node-hours" in refused.problem
    offers = {offer["kind"]: offer for offer in refused.details["offers"]}
    assert offers.keys() == {"exceptions", "fewer"}, "of the four that share four hours, two could be had as asked"
    for offer in offers.values():
        would_be_granted(world, taken(series, offer))


def test_the_answer_to_a_dry_run_says_nothing_of_names_that_nobody_asked_for():
    world = World(node(1))
    for name in ("lease-asked", "series-1"):
        world.grant(name=name)
    rule = {"when": When.PERIODIC, "rule": "FREQ=DAILY;COUNT=3", "start": int(world.now) + 7200}
    for terms in ({}, rule):
        request = LeaseRequest((GroupRequest("demo"),), 600, **terms)
        assert consider(Draft(world.present, actor="ann", now=world.now), request, owner="ann", ids=world.ids)["fits"]


def test_a_reservation_that_is_too_near_is_offered_as_near_as_it_can_be_prepared():
    world = World(node(1))
    now = int(world.now)
    request = LeaseRequest((GroupRequest("demo"),), 600, when=When.RESERVATION, start=now + 5)
    offers = {offer["kind"]: offer for offer in refusal(world, request).details["offers"]}
    assert offers.keys() == {"later", "now"}
    lease = world.grant(when=When.RESERVATION, start=offers["later"]["start"])
    assert now + 60 <= lease.plan.begin <= now + 61, "with a minute to answer in"


def test_an_offer_keeps_clear_of_a_maintenance():
    world = World(node(1))
    now = int(world.now)
    lease = world.grant(GroupRequest("demo", cpus=4), duration_s=600)
    window = {"start": lease.end + 300, "duration_s": 5000, "reason": "disks"}
    world.decide(plan_maintenance, world.present.nodes["nod-001"], id="mnt-1", **window)
    refused = refusal(world, LeaseRequest((GroupRequest("demo"),), 400))
    later = next(offer for offer in refused.details["offers"] if offer["kind"] == "later")
    begin = later["start"] - 27
    assert lease.end + 5300 - 1 <= begin <= lease.end + 5301
    assert now < begin


def test_those_who_can_give_way_do_so_for_what_is_offered():
    world = World(node(1))
    world.grant(GroupRequest("demo", cpus=4), duration_s=5000, when=When.BEST_EFFORT, preemptible=True)
    world.tick(1)
    follow(world)
    world.tick(1)
    refused = refusal(world, LeaseRequest((GroupRequest("demo", cpus=4),), 600))
    (later,) = refused.details["offers"]
    assert later["kind"] == "later"
    assert later["start"] < world.now + 200, "as soon as it can be saved, not when it ends"


def test_what_the_image_could_not_boot_with_is_not_offered():
    world = World(node(1, memory_mib=280), images=IMAGES)
    offers = refusal(world, LeaseRequest((GroupRequest("big", memory_mib=400, disk_mib=100),), 60)).details["offers"]
    assert not offers
    offers = refusal(world, LeaseRequest((GroupRequest("demo", memory_mib=400, disk_mib=100),), 60)).details["offers"]
    assert [offer["memory_mib"] for offer in offers] == [280]


def offers_by_kind(world: World, request: LeaseRequest) -> dict[str, dict]:
    refused = refusal(world, request)
    assert refused is not None
    for offer in refused.details["offers"]:
        would_be_granted(world, taken(request, offer))
    return {offer["kind"]: offer for offer in refused.details["offers"]}


def test_a_limit_and_the_room_are_kept_together():
    """Below the limit where others have the room, and in the room where the limit is reached: neither is offered."""
    world = World(node(1), chosen=Chosen(membership=Membership(users={"ann": User(limits=Limits(concurrent=3))})))
    first = world.grant(GroupRequest("demo", count=3), duration_s=600, owner="ann")
    world.grant(GroupRequest("demo", cpus=4), duration_s=600, owner="bob", when=When.RESERVATION, start=first.end + 30)
    offers = offers_by_kind(world, LeaseRequest((GroupRequest("demo", count=2),), 300))
    assert offers.keys() == {"later"}
    assert offers["later"]["start"] >= first.end + 630, "when the limit would let it pass, bob has the node"


def test_what_two_limits_leave_together_is_offered():
    limits = {"users": {"ann": User(limits=Limits(total=4))}, "vos": {"atlas": VO(("ann",), limits=Limits(total=2))}}
    world = World(node(1, cpus=8), chosen=Chosen(membership=Membership(**limits)))
    offers = offers_by_kind(world, LeaseRequest((GroupRequest("demo", count=6),), 300))
    assert offers["fewer"]["count"] == 2


def test_a_start_too_far_ahead_is_offered_where_there_is_room():
    world = World(node(1), chosen=Chosen(membership=Membership(each_user=Limits(ahead_s=3600))))
    now = int(world.now)
    whole = LeaseRequest((GroupRequest("demo", cpus=4),), 600, when=When.RESERVATION, start=now + 9000)
    assert offers_by_kind(world, whole)["sooner"]["start"] == now + 3600
    world.grant(GroupRequest("demo", cpus=1), owner="bob", when=When.RESERVATION, start=now + 3300)
    assert offers_by_kind(world, whole)["sooner"]["start"] < now + 600, "at the limit there is no room"


def test_node_hours_left_for_less_than_was_asked_are_offered_when_there_is_room():
    world = World(node(1), chosen=Chosen(membership=Membership(each_user=Limits(node_hours=2))))
    world.grant(GroupRequest("demo", cpus=4), duration_s=1800, owner="bob")
    offers = offers_by_kind(world, LeaseRequest((GroupRequest("demo"),), 3 * 3600))
    (offer,) = offers.values()
    assert (offer["kind"], offer["duration_s"]) == ("combined", 3600), "an hour of the two was held before"
    assert offer["start"] >= world.now + 1800


def test_fewer_and_later_are_offered_together_where_neither_is_enough():
    world = World(node(1), node(2))
    world.grant(GroupRequest("demo", count=2, cpus=4), duration_s=600)
    offers = offers_by_kind(world, LeaseRequest((GroupRequest("demo", count=3, cpus=4),), 300))
    (offer,) = offers.values()
    assert (offer["kind"], offer["count"]) == ("combined", 2)
    assert offer["start"] >= world.now + 600


def test_smaller_and_by_a_later_deadline_are_offered_together_where_neither_is_enough():
    world = full_world()
    large = GroupRequest("demo", cpus=5, memory_mib=100, disk_mib=10)
    request = LeaseRequest((large,), 60, when=When.DEADLINE, deadline=int(world.now) + 200)
    (offer,) = offers_by_kind(world, request).values()
    assert (offer["kind"], offer["count"], offer["cpus"]) == ("combined", 1, 4)
    assert offer["deadline"] > world.now + 1000


def test_of_several_groups_fewer_of_the_largest_are_offered():
    world = World(node(1), node(2))
    groups = (GroupRequest("demo", name="head"), GroupRequest("demo", count=9, name="worker"))
    offers = offers_by_kind(world, LeaseRequest(groups, 300))
    assert (offers["fewer"]["group"], offers["fewer"]["count"]) == ("worker", 7)
    assert offers["fewer"]["text"] == "7 of worker and all others would fit now"


@pytest.mark.parametrize("when", [When.IMMEDIATE, When.BEST_EFFORT])
@pytest.mark.parametrize(
    ("asked", "field", "problem", "possible"),
    [
        (
            {"memory_mib": 9000},
            "groups[0].memory_mib",
            "no node has 9000 MiB of memory for one workspace: n2 has the most, 3950",
            "one workspace of 1 CPU, 3950 MiB memory, 1024 MiB disk",
        ),
        (
            {"disk_mib": 200_000},
            "groups[0].disk_mib",
            "no node has 200000 MiB of disk for one workspace: n1 has the most, 100000",
            "one workspace of 1 CPU, 512 MiB memory, 100000 MiB disk",
        ),
        (
            {"cpus": 16, "requirement": "memory_mib < 3000"},
            "groups[0].cpus",
            "no node has 16 CPUs for one workspace: n1 has the most, 2",
            "one workspace of 2 CPUs",
        ),
        (
            {"memory_mib": 1500, "count": 3, "together": True},
            "groups[0].memory_mib",
            "no node has 1500 MiB of memory for each of 3 workspaces together: n2 has the most, 1283",
            "2 of this size would fit",
        ),
        (
            {"bandwidth_mbit": 100},
            "groups[0].bandwidth_mbit",
            "no node has 100 Mbit/s of its network for one workspace: none has any",
            "none of it",
        ),
    ],
)
def test_more_than_any_node_has_is_told_with_the_most_there_is_and_where(when, asked, field, problem, possible):
    world = World(
        node(1, cpus=2, memory_mib=2000), node(2, memory_mib=4000, overhead_mib=50), node(3, cpus=64, removed_at=1.0)
    )
    refused = refusal(world, LeaseRequest((GroupRequest("demo", **asked),), 60, when=when))
    assert (refused.field, refused.problem) == (field, problem)
    assert possible in refused.possible


def test_what_a_drained_node_has_is_for_those_who_may_wait_for_it():
    world = World(node(1), node(2, cpus=64, drained=True))
    large = LeaseRequest((GroupRequest("demo", cpus=32),), 60)
    refused = refusal(world, large)
    assert refused.problem == "no node has 32 CPUs for one workspace: n1 has the most, 4"
    assert refusal(world, replace(large, when=When.BEST_EFFORT)) is None


def test_of_a_large_site_few_nodes_show_that_one_could_have_it_when_empty(monkeypatch):
    """A refusal is an answer, too, and as quick: nobody waits until each of ten thousand nodes was looked at."""
    world = World(*(node(number) for number in range(1, 101)))
    looked_at: list[str] = []
    sized = offers._most_each
    monkeypatch.setattr(
        offers, "_most_each", lambda present, of, count: looked_at.append(of.id) or sized(present, of, count)
    )
    refused = refusal(
        world, LeaseRequest((GroupRequest("demo", count=1000, cpus=1, memory_mib=100, disk_mib=10),), 3600)
    )
    assert refused is not None
    assert "no room" in refused.problem
    assert len(looked_at) <= 4


def full_world() -> World:
    """Two nodes of 4 CPUs, both taken for 1000 s."""
    world = World(node(1, cpus=4), node(2, cpus=4))
    everything = LeaseRequest((GroupRequest("demo", count=2, cpus=4, memory_mib=100, disk_mib=10),), 1000)
    world.decide(agreement.grant, everything, owner="bob", ids=world.ids)
    return world


def test_who_may_wait_for_ever_is_refused_for_what_the_site_is_not_for_who_is_there():
    world = full_world()
    three = GroupRequest("demo", count=3, cpus=1, memory_mib=100, disk_mib=10, apart=True)
    with pytest.raises(CannotFit) as refused:
        world.decide(agreement.grant, LeaseRequest((three,), 60, when=When.BEST_EFFORT), owner="bob", ids=world.ids)
    reasons = {each["reason"] for each in refused.value.details["nodes"]}
    assert reasons == {"it has room for some of them, not for all"}


def test_by_a_deadline_one_is_offered_that_fits_once_a_node_is_empty():
    world = full_world()
    large = GroupRequest("demo", cpus=5, memory_mib=100, disk_mib=10)
    request = LeaseRequest((large,), 60, when=When.DEADLINE, deadline=int(world.now) + 9000)
    with pytest.raises(CannotFit) as refused:
        world.decide(agreement.grant, request, owner="bob", ids=world.ids)
    (offer,) = refused.value.details["offers"]
    assert (offer["kind"], offer["cpus"]) == ("smaller", 4)


@pytest.mark.parametrize(("granted", "found"), [((), None), ((1,), 1), ((1, 2, 3), 3), ((1, 2, 3, 4), 4)])
def test_the_last_that_is_granted_is_found(granted, found):
    assert last(range(1, 5), lambda each: each in granted) == found
    assert last((), lambda each: True) is None
