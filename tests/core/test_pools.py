"""Which addresses a site has set aside, as its administrator writes it."""

from __future__ import annotations

import pytest

from vws.core.errors import InvalidRequest
from vws.core.pools import PoolConfig, default_of, pools_of

GUESTS = "10.64.0.0/10"
CAMPUS = PoolConfig("192.0.2.0/24", addresses=("192.0.2.40", "192.0.2.16-192.0.2.18"))


def test_a_pool_is_what_is_set_aside_of_its_network():
    pool = pools_of({"campus": CAMPUS}, guest_network=GUESTS)["campus"]
    assert list(pool) == ["192.0.2.16", "192.0.2.17", "192.0.2.18", "192.0.2.40"]
    assert (pool.size, pool.gateway) == (4, "192.0.2.1")
    assert "192.0.2.17" in pool
    assert "192.0.2.19" not in pool
    assert "front" not in pool


@pytest.mark.parametrize(("gateway", "first", "last"), [("", 2, 14), ("192.0.2.14", 1, 13)])
def test_without_a_word_all_but_the_gateway_is(gateway, first, last):
    pool = pools_of({"all": PoolConfig("192.0.2.0/28", gateway)}, guest_network=GUESTS)["all"]
    assert list(pool) == [f"192.0.2.{number}" for number in range(first, last + 1)]
    middle = pools_of({"all": PoolConfig("192.0.2.0/29", "192.0.2.3")}, guest_network=GUESTS)["all"]
    assert [address[-1] for address in middle] == ["1", "2", "4", "5", "6"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"range": "192.0.2.0"}, "range"),
        ({"range": "192.0.2.1/24"}, "range"),
        ({"range": "192.0.2.0/31"}, "range"),
        ({"range": "0.0.0.0/0"}, "range"),
        ({"range": "10.65.0.0/24"}, "range"),
        ({"range": "224.0.0.0/24"}, "range"),
        ({"gateway": "192.0.3.1"}, "gateway"),
        ({"gateway": "192.0.2.255"}, "gateway"),
        ({"gateway": "::1"}, "gateway"),
        ({"addresses": ("192.0.2.1",)}, "addresses"),
        ({"addresses": ("192.0.2.9-192.0.2.8",)}, "addresses"),
        ({"addresses": ("192.0.2.8-192.0.2.9", "192.0.2.9")}, "addresses"),
        ({"addresses": ("192.0.2.0-192.0.2.9",)}, "addresses"),
        ({"addresses": ("192.0.2.8-",)}, "addresses"),
        ({"require": "cpus >"}, "require"),
        ({"reserved_max": -1}, "reserved_max"),
    ],
)
def test_what_cannot_be_set_aside_is_refused_by_its_key(change, key):
    given = {"range": "192.0.2.0/24"} | change
    with pytest.raises(InvalidRequest) as refused:
        pools_of({"campus": PoolConfig(**given)}, guest_network=GUESTS)
    assert refused.value.field == f"pools.campus.{key}"


def test_pools_have_no_address_in_common_and_one_default():
    other = PoolConfig("192.0.2.128/25")
    with pytest.raises(InvalidRequest, match=r"192\.0\.2\.0/24, which is pools\.campus"):
        pools_of({"campus": CAMPUS, "other": other}, guest_network=GUESTS)
    both = {"a": PoolConfig("192.0.2.0/25"), "b": PoolConfig("192.0.2.128/25")}
    assert default_of(pools_of(both, guest_network=GUESTS)) is None
    both["b"] = PoolConfig("192.0.2.128/25", default=True)
    assert default_of(pools_of(both, guest_network=GUESTS)).name == "b"
    assert default_of(pools_of({"a": both["a"]}, guest_network=GUESTS)).name == "a"
    assert default_of({}) is None
    with pytest.raises(InvalidRequest, match="the pool a is the default already"):
        pools_of({"a": PoolConfig("192.0.2.0/25", default=True), "b": both["b"]}, guest_network=GUESTS)


def test_a_pool_whose_range_changed_is_another_network():
    before = pools_of({"campus": CAMPUS}, guest_network=GUESTS)["campus"].network
    assert before == pools_of({"campus": PoolConfig("192.0.2.0/24")}, guest_network=GUESTS)["campus"].network
    assert before != pools_of({"campus": PoolConfig("192.0.3.0/24")}, guest_network=GUESTS)["campus"].network
