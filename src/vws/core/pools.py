"""Address pools: public addresses that a site's administrator sets aside, in `[pools.NAME]` of site.toml.

A pool is a network that is somebody else's (the campus's, the provider's) and some addresses of it that VWS may give
to guests. Nodes route to it and never translate: what is sent to such an address anywhere arrives at the guest that
has it. `require` says which nodes can do that, in the language of requirements, so that members with such addresses
are planned there.

A pool is known by its name, and as a network by what it is made of: when its range changes, those who hold addresses
keep them in the network that they were given in, and new ones are given in the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from vws.core.errors import InvalidRequest
from vws.core.requirements import parse
from vws.core.terms import check_name, check_number

ADDRESSES_MAX = 1 << 16
RESERVED_MAX = 1_000
LONGEST_PREFIX = 30


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """[pools.NAME] in site.toml. range: the network. gateway: the nodes' address in it, by default the first.
    addresses: what of it may be given out, single ones and FIRST-LAST, by default all but the gateway's.

    require: what a node must be to have guests on it. default: whether it is meant by `public: true`; a pool that is
    alone is. reserved_max: how many addresses a user may reserve.
    """

    range: str = ""
    gateway: str = ""
    addresses: tuple[str, ...] = ()
    require: str = ""
    default: bool = False
    reserved_max: int = 2


@dataclass(frozen=True, slots=True)
class Pool:
    """spans: of addresses as numbers, (first, last), in order and apart."""

    name: str
    cidr: str
    gateway: str
    spans: tuple[tuple[int, int], ...]
    require: str = ""
    default: bool = False
    reserved_max: int = 2

    @property
    def network(self) -> str:
        """The id of its network on nodes."""
        return f"pol-{hashlib.sha256(f'{self.name} {self.cidr} {self.gateway}'.encode()).hexdigest()[:16]}"

    @property
    def size(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __contains__(self, address: str) -> bool:
        try:
            number = int(ipaddress.IPv4Address(address))
        except ValueError:
            return False
        return any(first <= number <= last for first, last in self.spans)

    def __iter__(self) -> Iterator[str]:
        """Its addresses in order."""
        for first, last in self.spans:
            for number in range(first, last + 1):
                yield str(ipaddress.IPv4Address(number))


def pools_of(configured: Mapping[str, PoolConfig], *, guest_network: str) -> dict[str, Pool]:
    """By name. guest_network: the nodes' own, which no pool may overlap. InvalidRequest names the key that is wrong."""
    pools = {name: _pool(name, config) for name, config in configured.items()}
    taken = {"service.guest_network": ipaddress.IPv4Network(guest_network)}
    for name, pool in pools.items():
        network = ipaddress.IPv4Network(pool.cidr)
        for other, theirs in taken.items():
            if network.overlaps(theirs):
                _wrong(name, "range", f"{network} overlaps {theirs}, which is {other}", pool.cidr, "a range of its own")
        taken[f"pools.{name}"] = network
    defaults = [name for name, pool in pools.items() if pool.default]
    if len(defaults) > 1:
        _wrong(defaults[1], "default", f"the pool {defaults[0]} is the default already", True, "one of them")
    return pools


def default_of(pools: Mapping[str, Pool]) -> Pool | None:
    """The one that is meant where none is named."""
    alone = next(iter(pools.values())) if len(pools) == 1 else None
    return next((pool for pool in pools.values() if pool.default), alone)


def _pool(name: str, config: PoolConfig) -> Pool:
    check_name(name, f"pools.{name}")
    check_number(config.reserved_max, f"pools.{name}.reserved_max", 0, RESERVED_MAX)
    if config.require:
        parse(config.require, f"pools.{name}.require")
    network = _network(name, config.range)
    gateway = _address(name, "gateway", config.gateway, network) if config.gateway else int(network[1])
    spans = [_span(name, text, network) for text in config.addresses]
    if not spans:
        spans = [(int(network[1]), gateway - 1), (gateway + 1, int(network[-2]))]
    spans = sorted(span for span in spans if span[0] <= span[1])
    _check_spans(name, spans, gateway)
    return Pool(
        name, str(network), str(ipaddress.IPv4Address(gateway)), tuple(spans), config.require, config.default,
        config.reserved_max,
    )  # fmt: skip


def _network(name: str, text: str) -> ipaddress.IPv4Network:
    possible = f"a network with its prefix length, such as 192.0.2.0/24, no longer than /{LONGEST_PREFIX}"
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        _wrong(name, "range", f"{error}", text, possible)
    no_guests = network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified
    if no_guests or network.prefixlen > LONGEST_PREFIX or network.num_addresses > ADDRESSES_MAX:
        _wrong(
            name, "range", f"{network} cannot be a pool's", text, f"{possible}, of at most {ADDRESSES_MAX} addresses"
        )
    return network


def _span(name: str, text: str, network: ipaddress.IPv4Network) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    start = _address(name, "addresses", first.strip(), network)
    end = _address(name, "addresses", last.strip(), network) if dash else start
    if end < start:
        _wrong(name, "addresses", f"{text} ends before it begins", text, "FIRST-LAST")
    return start, end


def _address(name: str, key: str, text: str, network: ipaddress.IPv4Network) -> int:
    possible = f"an address between {network[1]} and {network[-2]}"
    try:
        number = int(ipaddress.IPv4Address(text))
    except ValueError:
        _wrong(name, key, f"{text!r} is no address", text, possible)
    if not int(network[0]) < number < int(network[-1]):
        _wrong(name, key, f"{text} is not an address of a host in {network}", text, possible)
    return number


def _check_spans(name: str, spans: list[tuple[int, int]], gateway: int) -> None:
    if not spans:
        _wrong(name, "addresses", "no address is set aside", "", "addresses beside the gateway's")
    if any(first <= gateway <= last for first, last in spans):
        shown = str(ipaddress.IPv4Address(gateway))
        _wrong(name, "addresses", f"{shown} is the gateway's, not a guest's", shown, "addresses without it")
    for one, other in pairwise(spans):
        if other[0] <= one[1]:
            shown = str(ipaddress.IPv4Address(other[0]))
            _wrong(name, "addresses", f"{shown} is there twice", shown, "each address once")


def _wrong(name: str, key: str, problem: str, asked: object, possible: str) -> NoReturn:
    raise InvalidRequest(f"the pool {name}: {problem}", field=f"pools.{name}.{key}", asked=asked, possible=possible)
