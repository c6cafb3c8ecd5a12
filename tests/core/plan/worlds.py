"""Random sites and workloads, small enough that everything on them can be looked at.

Drawn from a `Random`. Hypothesis gives either one whose every draw it chooses (small cases, which it shrinks), or a
seed: evenly drawn, crowded sites in which more happens, a thousand in the time of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import strategies as st

from tests.core.plan.model import Members, Scenario, Wish
from vws.core.plan.profile import Amount
from vws.core.plan.rules import ANYBODYS, NOBODYS, SINGLES, UNLIMITED

Build = Callable[[Random], Scenario]


def shrinking(build: Build) -> st.SearchStrategy[Scenario]:
    return st.randoms(use_true_random=False).map(build)


def seeded(build: Build) -> st.SearchStrategy[Scenario]:
    return st.integers(0, 1 << 40).map(lambda seed: build(Random(seed)))


def rules(random: Random, **fixed: object) -> dict[str, object]:
    bookings = random.choice([0, 1, 1, 2, UNLIMITED, UNLIMITED])
    found: dict[str, object] = {
        "bookings": bookings,
        "backfill": bookings > 0,
        "suspend": random.choice([NOBODYS, SINGLES, ANYBODYS, ANYBODYS]),
        "migrate": random.random() < 0.5,
        "suspend_mib_per_s": random.choice([50.0, 100.0, 150.0]),
        "resume_mib_per_s": random.choice([50.0, 100.0, 150.0]),
        "transfer_mib_per_s": random.choice([20.0, 50.0]),
        "enact_s": random.choice([0.0, 0.0, 0.5]),
        "useful": random.choice([0.5, 2.0]),
        "patience_s": random.choice([50, 86_400]),
        "smallest_first": random.random() < 0.5,
        "setbacks_max": random.choice([1, 2, 10]),
        "spared_after_s": random.choice([30, 1_000_000]),
    }
    return found | fixed


def plain(random: Random, *, hard: bool = True, **fixed: object) -> Scenario:
    """Equal nodes, each for one member of one CPU."""
    nodes = random.randint(1, 4)
    wishes = tuple(_plain_wish(random, nodes, hard) for _ in range(random.randint(1, 16)))
    return Scenario((Amount(1, 100),) * nodes, wishes, rules(random, **fixed))


def _plain_wish(random: Random, nodes: int, hard: bool) -> Wish:
    return Wish(
        submit=random.randint(0, 80),
        members=(Members(random.randint(1, nodes), Amount(1, 100), "apart"),),
        requested=random.randint(1, 60),
        runs=random.choice([1000, random.randint(0, 60)]),
        ahead=random.randint(0, 60) if hard and random.randint(0, 3) == 3 else -1,
        restartable=random.randint(0, 3) == 3,
    )


def anything(random: Random, **fixed: object) -> Scenario:
    """Different nodes for several members each; demands of all kinds."""
    nodes = tuple(
        Amount(
            random.randint(2, 4), random.choice([400, 600, 800]), random.randint(8, 20), random.randint(2, 6),
            random.randint(3, 6),
        )
        for _ in range(random.randint(1, 4))
    )  # fmt: skip
    wishes = tuple(_wish(random, nodes) for _ in range(random.randint(1, 20)))
    closed = tuple(node for node in range(len(nodes)) if random.randint(0, 14) == 14)
    return Scenario(nodes, wishes, rules(random, **fixed), closed)


def _wish(random: Random, nodes: tuple[Amount, ...]) -> Wish:
    kind = random.choice(["soft", "soft", "soft", "soft", "hard", "hard", "deadline"])
    members = tuple(_members(random, nodes) for _ in range(random.choice([1, 1, 1, 1, 2])))
    return Wish(
        submit=random.randint(0, 90),
        members=members,
        requested=random.randint(1, 80),
        runs=random.choice([1000, 1000, 1000, random.randint(0, 40)]),
        ahead=random.randint(0, 60) if kind == "hard" else -1,
        within=random.randint(0, 200) if kind == "deadline" else -1,
        preemptible=random.randint(0, 5) < (2 if kind == "hard" else 5),
        restartable=random.randint(0, 2) == 2,
        prepare_s=random.choice([0, 0, 3, 10]),
        shutdown_s=random.choice([0, 0, 2, 15]),
        turn=random.choice([None, None, random.randint(0, 5)]),
        withdrawn_after=random.choice([0, 10, 40]) if random.randint(0, 9) == 9 else -1,
        one_node=random.randint(0, 4) == 4 and not any(each.kind == "apart" for each in members),
    )


def _members(random: Random, nodes: tuple[Amount, ...]) -> Members:
    kind = random.choice(["", "", "", "apart", "together"])
    size = Amount(
        random.choice([0, 1, 1, 1, 2]),
        random.choice([0, 100, 100, 200, 300]),
        random.choice([0, 0, 0, 1, 3]),
        random.choice([0, 0, 0, 1]),
        random.choice([1, 1, 1, 0]),
    )
    count = random.randint(1, 2 * len(nodes)) if kind == "" else random.randint(1, len(nodes))
    return Members(count, size, kind, _mask(random, len(nodes)), _mask(random, len(nodes)))


def _mask(random: Random, nodes: int) -> tuple[bool, ...] | None:
    return tuple(random.random() < 0.7 for _ in range(nodes)) if random.randint(0, 4) == 4 else None
