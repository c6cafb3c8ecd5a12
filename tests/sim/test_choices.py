"""A site's rules and choices in a simulation: each reaches the planner, and changes what becomes of leases."""

from __future__ import annotations

import pytest

from vws.core.errors import InvalidRequest
from vws.core.membership import VO
from vws.core.plan.rules import SINGLES
from vws.policies import Members
from vws.sim.configured import configured
from vws.sim.workload import Job, SimulatedPolicy, SimulatedSite, check_simulated
from vws.sim.world import planner_for, simulate

ONE = SimulatedSite(1, 1, 1024)
VOS = Members({"physics": VO(("p",), priority=5.0), "biology": VO(("b",))}, {}, {})


def starts(jobs, **policy):
    return [fate.start for fate in simulate(jobs, ONE, SimulatedPolicy(**policy)).fates]


def test_every_rule_reaches_the_planner():
    policy = SimulatedPolicy(
        3, "serial", smallest_first=False, patience_h=1.5, useful=3, setbacks_max=4, spared_after_h=2
    )
    rules = planner_for(SimulatedSite(1, 1, 1024, 10, 20, 30), policy).rules
    assert (rules.bookings, rules.suspend, rules.migrate, rules.smallest_first) == (3, SINGLES, False, False)
    assert (rules.patience_s, rules.useful, rules.setbacks_max, rules.spared_after_s) == (5400, 3, 4, 7200)
    assert (rules.suspend_mib_per_s, rules.resume_mib_per_s, rules.transfer_mib_per_s) == (10, 20, 30)


# The first holds the node when the others ask: `p` again, with much, and then `b`, with little.
QUEUE = (
    Job(1, 0, 1, 100, 100, owner="p"),
    Job(2, 10, 1, 500, 500, owner="p"),
    Job(3, 20, 1, 50, 50, owner="b"),
)


@pytest.mark.parametrize(
    ("order", "second", "third"),
    [("first-come", 100, 600), ("smallest-first", 150, 100), ("fair-share", 150, 100), ("priority", 100, 600)],
)
def test_who_comes_first_is_the_sites_choice(order, second, third):
    assert starts(QUEUE, backfill="off", order=order, members=VOS) == [0, second, third]


def test_what_was_used_long_ago_is_forgotten():
    """`b` used more, but a thousand half-lives before."""
    day = 86_400
    jobs = (
        Job(1, 0, 1, day, day, owner="b"),
        Job(2, 20 * day, 1, 3600, 3600, owner="p"),
        Job(3, 20 * day + 10, 1, 60, 60, owner="p"),
        Job(4, 20 * day + 20, 1, 60, 60, owner="b"),
    )
    fading, for_ever = (
        starts(jobs, backfill="off", order="fair-share", half_life_days=each)[2:] for each in (0.02, 0.0)
    )
    assert fading[1] < fading[0]
    assert for_ever[0] < for_ever[1]


@pytest.mark.parametrize(
    ("preemption", "granted"),
    [("hard-suspends-soft", True), ("nobody", False), ("only-urgent", False), ("higher-priority", True),
     ("within-vo", False)],
)  # fmt: skip
def test_who_may_suspend_whom_is_the_sites_choice(preemption, granted):
    jobs = (Job(1, 0, 1, 6000, 5000, owner="b"), Job(2, 1, 1, 600, 600, at=2000, owner="p"))
    run = simulate(jobs, ONE, SimulatedPolicy(suspend="all", preemption=preemption, members=VOS))
    assert [fate.granted for fate in run.fates] == [True, granted]
    assert [fate.suspensions for fate in run.fates] == [int(granted), 0]


def test_a_function_of_the_sites_own_is_found_beside_its_file(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "simulated_house.py").write_text(
        "def last_first(standing, shares, now): return -standing.submit\n"
    )
    path = tmp_path / "site.toml"
    path.write_text('[planning]\nbackfill = "0"\n[policy]\norder = "simulated_house:last_first"\n')
    policy = configured(path)
    assert policy["backfill"] == 0
    assert starts(QUEUE, **policy) == [0, 150, 100]


def test_what_no_planner_can_do_is_refused_by_its_key():
    for key, value in (("suspend", "some"), ("order", "mine"), ("setbacks_max", -1)):
        with pytest.raises(InvalidRequest) as refused:
            check_simulated(SimulatedPolicy(**{key: value}))
        assert refused.value.field.endswith(key)
