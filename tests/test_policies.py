"""A policy from a configuration: names, own functions, and what is wrong with either."""

import logging
import math
import sys
import textwrap

import pytest

from vws.config import SiteDirectory, load
from vws.core.admission import Holdings, within_limits
from vws.core.errors import Forbidden, InvalidRequest, LimitReached
from vws.core.membership import Limits
from vws.core.policy import HostView, Standing, fair_share, hard_suspends_soft, pack
from vws.core.shares import Shares
from vws.core.tariff import Metered, Tariff, per_cpu_hour
from vws.policies import Members, PolicyConfig, choose, needs_modules, price_of

NOBODY = Members({}, {}, {})
OWN = """
    from vws.core.errors import Forbidden

    def admit(asked, holdings, limits, now):
        if asked.owner == "mallory":
            raise Forbidden("not he")
        if asked.owner == "broken":
            1 / 0

    def order(standing, shares, now):
        return {"a": "3", "b": float("nan")}[standing.owner]

    def suspend(hard, victim):
        return hard.vo[0] == victim.vo[0]

    def rank(host):
        return len(host.name) if host.node == "bad" else 7

    def price(tariff, metered):
        return tariff.base if metered.vo == "x" else None

    number = 5

    def too_many(a, b, c, d, e):
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a module of a site's own."""
    name = "own_policy_of_a_test"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path):
    def write(text: str) -> SiteDirectory:
        (tmp_path / "site.toml").write_text(textwrap.dedent(text))
        return SiteDirectory(tmp_path)

    return write


def test_a_configuration_names_everything(site):
    config = load(
        site(
            """
            [policy]
            order = "fair-share"
            hosts = "pack"
            half_life_days = 2
            each_user = {concurrent = 4}

            [vos.atlas]
            users = ["ann", "bob"]
            share = 3
            limits = {node_hours = 100, days = 7}

            [groups.students]
            users = ["bob"]

            [users.bob]
            priority = 2.5

            [tariff]
            unit = "credit"
            price = "per-cpu-hour"
            kinds = {reservation = 1.5}
            time_zone = "Europe/Zurich"
            [[tariff.bands]]
            factor = 0.5
            begin = "20:00"
            end = "06:00"
            """
        )
    )
    chosen = choose(config.policy, config.members)
    assert (chosen.admit, chosen.order, chosen.preempt, chosen.host_rank) == (
        within_limits, fair_share, hard_suspends_soft, pack,
    )  # fmt: skip
    assert chosen.half_life_s == 2 * 86400
    assert chosen.membership.vo_of("ann") == "atlas"
    assert chosen.membership.priority_of("bob") == 2.5
    by_title = {party.title: party.limits for party in chosen.membership.parties("bob")}
    assert by_title == {
        "the user bob": Limits(concurrent=4), "the group students": Limits(),
        "the VO atlas": Limits(node_hours=100, days=7),
    }  # fmt: skip
    assert price_of(config.tariff) is per_cpu_hour
    assert config.tariff.bands[0].end == "06:00"
    assert not needs_modules(config.policy, config.tariff)


@pytest.mark.parametrize(
    ("text", "field", "possible"),
    [
        ('[policy]\norder = "fairshare"', "policy.order", "fair-share"),
        ('[policy]\nhalf_life_days = -1', "policy.half_life_days", "0 or more"),
        ('[policy]\neach_vo = {total = -1}', "policy.each_vo.total", "0 or more"),
        ('[policy]\nfavourite = "ann"', "site.toml.policy.favourite", "a known field"),
        ('[vos.a]\nusers = ["x"]\n[vos.b]\nusers = ["x"]', "vos.b.users", "one VO"),
        ('[vos.a]\nshares = 3', "site.toml.vos.a.shares", "a known field"),
        ('[groups]\nstudents = ["x"]', "site.toml.groups.students", "an object"),
        ('[tariff]\nprice = "cheap"', "tariff.price", "per-node-hour"),
        ('[tariff]\ntime_zone = "Mars/Olympus"', "tariff.time_zone", "Europe/Zurich"),
        ('[tariff]\ntime_zone = "../../etc/passwd"', "tariff.time_zone", "Europe/Zurich"),
        ('[tariff]\nkinds = {fast = 2}', "tariff.kinds.fast", "reservation"),
        ('[tariff]\nkinds = {immediate = "2"}', "site.toml.tariff.kinds.immediate", "a finite number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_anything_starts(site, text, field, possible):
    with pytest.raises(InvalidRequest) as error:
        load(site(text))
    assert error.value.field == field
    assert possible in str(error.value.possible)


def test_reading_a_configuration_imports_nothing_of_the_sites_own(site):
    config = load(site('[policy]\norder = "no_such_module_anywhere:order"'))
    assert needs_modules(config.policy, config.tariff)
    with pytest.raises(InvalidRequest, match="the module no_such_module_anywhere cannot be imported"):
        choose(config.policy, config.members)


@pytest.mark.parametrize(
    ("function", "problem", "possible"),
    [
        ("nothing", "has no function 'nothing'", "admit, order, suspend"),
        ("number", "has no function 'number'", "admit"),
        ("too_many", r"takes \(a, b, c, d, e\); it is called with 3", "3 arguments"),
        ("suspend", r"takes \(hard, victim\); it is called with 3", "3 arguments"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_at_the_start(own, function, problem, possible):
    with pytest.raises(InvalidRequest, match=problem) as error:
        choose(PolicyConfig(order=f"{own}:{function}"), NOBODY)
    assert error.value.field == "policy.order"
    assert possible in str(error.value.possible)


def test_a_module_that_fails_while_it_is_imported_says_how(tmp_path, monkeypatch):
    (tmp_path / "own_policy_that_fails.py").write_text("raise RuntimeError('the moon is full')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidRequest, match="RuntimeError: the moon is full"):
        choose(PolicyConfig(hosts="own_policy_that_fails:rank"), NOBODY)


def test_functions_of_ones_own_are_asked_and_their_failures_do_not_spread(own, caplog):
    policy = PolicyConfig(f"{own}:admit", f"{own}:order", f"{own}:suspend", f"{own}:rank")
    chosen = choose(policy, NOBODY)
    none, shares = Holdings("the user x"), Shares()
    with pytest.raises(Forbidden, match="not he"):
        chosen.admit(Standing("mallory"), none, Limits(), 0)
    chosen.admit(Standing("ann", nodes=9), none, Limits(total=1), 0)
    with caplog.at_level(logging.ERROR, "vws.policy"):
        with pytest.raises(LimitReached):
            chosen.admit(Standing("broken", nodes=9), none, Limits(total=1), 0)
        assert chosen.order(Standing("a"), shares, 0) == 3
        assert chosen.order(Standing("b"), shares, 0) == math.inf
        assert chosen.order(Standing("c"), shares, 0) == math.inf
        assert chosen.preempt(Standing("x", vo="ab"), Standing("y", vo="ac")) is True
        assert chosen.preempt(Standing("x"), Standing("y")) is False
        assert chosen.host_rank(HostView("good", 1, 1, 1, 1)) == 7
        assert chosen.host_rank(HostView("bad", 1, 1, 1, 1)) == 0
    said = [record.getMessage() for record in caplog.records]
    assert any(f"{own}:admit failed" in line and "division by zero" in line for line in said)
    assert sum(f"{own}:order failed" in line for line in said) == 2
    assert sum(f"{own}:rank failed" in line for line in said) == 1


def test_a_failure_that_goes_on_is_told_ever_more_rarely(own, caplog):
    chosen = choose(PolicyConfig(order=f"{own}:order"), NOBODY)
    with caplog.at_level(logging.ERROR, "vws.policy"):
        for _ in range(100):
            chosen.order(Standing("c"), Shares(), 0)
    assert len(caplog.records) == 7


def test_a_price_of_ones_own(own):
    tariff = Tariff(base=4.0, price=f"{own}:price")
    price = price_of(tariff)
    metered = [Metered("immediate", False, False, "ann", vo, 10.0, 20.0) for vo in ("x", "y")]
    assert [price(tariff, each) for each in metered] == [4, 40]
