"""The broker: a thousand members that all want to know each other.

Contexts of machines that nobody booted: guests are simulated in the bench's own process, each with its own TLS
connection to a real service. The clock runs from the moment the last member says who it is until the last one has
read, unpacked and counted the list of all.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.guests import Guest, all_of
from bench.measure import Number, Section, median, spread
from bench.sites import Api, BenchSite, fake_site
from vws.config import SiteDirectory

FILES = 16_384


@dataclass(frozen=True)
class Size:
    large: int
    small: int
    contexts: int
    each: int
    rounds: int


FULL = Size(large=1000, small=100, contexts=200, each=5, rounds=3)
QUICK = Size(large=20, small=5, contexts=4, each=5, rounds=1)


@dataclass(frozen=True)
class Round:
    """complete_s: from the last report to the last complete member; service_cpu_s: what the service computed in it.
    ready_s: to the record that says so. first_bytes: of the list, to each; changed_bytes: what one member's new address
    cost for each of the others."""

    complete_s: float
    service_cpu_s: float
    ready_s: float
    first_bytes: float
    changed_bytes: float
    joined_per_s: float


def run(quick: bool) -> Section:
    size = QUICK if quick else FULL
    _allow_files()
    numbers: list[Number] = []
    with fake_site(1) as site:
        large = [_with(site, lambda place: _one_context(place, size.large)) for _ in range(size.rounds)]
        peak_mib = site.usage("service").peak_mib
        small = [_with(site, lambda place: _one_context(place, size.small)) for _ in range(size.rounds)]
        together = []
        for _ in range(size.rounds):
            # Turn and turn about.
            one = _with(site, lambda place: _at_once(place, 1, size.contexts * size.each))
            many = _with(site, lambda place: _at_once(place, size.contexts, size.each))
            together.append((one, many))
    numbers += _of_one(size.large, large, 5.0 if not quick else None)
    numbers += _of_one(size.small, small, 0.5 if not quick else None)
    numbers.append(Number("service's memory, peak RSS", peak_mib, "MiB", 300, f"after {size.rounds} contexts in turn"))
    numbers += _of_many(size, together)
    how = (
        f"Simulated guests over TLS, each requiring every other's identity; {size.rounds} contexts of each size in "
        "turn on one service. Guests and service share the machine. Documents are gzipped; bytes are of HTTP answers."
    )
    return Section("contexts", f"{size.large} members that learn of each other", how, tuple(numbers))


def _of_one(members: int, rounds: list[Round], target: float | None) -> list[Number]:
    complete, ready = [r.complete_s for r in rounds], [r.ready_s for r in rounds]
    name = f"{members} members: "
    first, changed = median([r.first_bytes for r in rounds]), median([r.changed_bytes for r in rounds])
    joined = f"{median([r.joined_per_s for r in rounds]):.0f} connections, joins and reports per second before"
    beside = f"{spread(complete, 's')}; the service's CPU: {median([r.service_cpu_s for r in rounds]):.2f} s"
    return [
        Number(name + "last report to last complete", median(complete), "s", target, beside),
        Number(name + "last report to context ready", median(ready), "s", None, f"{spread(ready, 's')}; {joined}"),
        Number(
            name + "whole list, to each", first / 1024, "KiB", None, f"{first / members:.0f} bytes per member in it"
        ),
        Number(name + "one changed address, to each", changed / 1024, "KiB", 1, f"{changed / first:.2%} of the list"),
    ]


def _of_many(size: Size, rounds: list[tuple[float, float]]) -> list[Number]:
    one, many = [r[0] for r in rounds], [r[1] for r in rounds]
    total, several = size.contexts * size.each, f"{size.contexts} contexts of {size.each}"
    return [
        Number(f"1 context of {total}, all report at once", median(one), "s", None, spread(one, "s")),
        Number(f"{several}, all report at once", median(many), "s", None, spread(many, "s")),
        Number("many small ones by one large one", median(many) / median(one), "×", 1),
    ]


# ---------------------------------------------------------------- rounds


@dataclass(frozen=True)
class Place:
    site: BenchSite
    url: str
    trust: ssl.SSLContext
    api: Api


def _with(site: BenchSite, act: Callable[[Place], Coroutine[Any, Any, Any]]) -> Any:
    directory = SiteDirectory(site.path)
    trust = ssl.create_default_context(cafile=str(directory.ca))
    with Api(site.path) as api, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(act(Place(site, directory.url.read_text().strip(), trust, api)))


def _guests(place: Place, contexts: int, members: int) -> tuple[list[str], list[Guest]]:
    ids, guests = [], []
    for number in range(contexts):
        asked = {"name": f"c-{number}-{members}", "members": [{"name": f"n-{i}"} for i in range(members)]}
        made = place.api.call("POST", "/contexts", asked)
        ids.append(made["id"])
        for i, each in enumerate(made["secrets"]):
            guests.append(Guest(place.url, place.trust, number * members + i, each["name"], each["secret"]))
    return ids, guests


async def _end(place: Place, ids: list[str], guests: list[Guest]) -> None:
    await asyncio.gather(*(guest.close() for guest in guests))
    for id in ids:
        await asyncio.to_thread(place.api.call, "DELETE", f"/contexts/{id}")


async def _one_context(place: Place, members: int) -> Round:
    ids, guests = _guests(place, 1, members)
    began_at = time.perf_counter()
    await all_of(guests, "join")
    *others, last = guests
    await all_of(others, "report")
    joined_per_s = members / (time.perf_counter() - began_at)
    # Everybody has the part that is known before, and waits for the rest.
    await all_of(guests, "hear")
    heard = sum(guest.bytes_heard for guest in guests)
    waiting = [asyncio.create_task(guest.hear_of(members)) for guest in others]
    await asyncio.sleep(1.0)
    used_s, reported_at, reported = place.site.usage("service").cpu_s, time.perf_counter(), time.time()
    await last.report()
    await asyncio.gather(last.hear_of(members), *waiting)
    complete_s = max(guest.heard_at for guest in guests) - reported_at
    used_s = place.site.usage("service").cpu_s - used_s
    first_bytes = (sum(guest.bytes_heard for guest in guests) - heard) / members
    # To ask for more is to say that one has it.
    waiting = [asyncio.create_task(guest.hear_of(members + 1)) for guest in guests]
    ready_s = await _ready(place, ids[0]) - reported
    heard = sum(guest.bytes_heard for guest in guests)
    mover = Guest(place.url, place.trust, last.number, last.name, last.secret)
    await mover.join()
    await mover.report("10.255.0.1")
    await asyncio.gather(*waiting)
    changed_bytes = (sum(guest.bytes_heard for guest in guests) - heard) / members
    await _end(place, ids, [*guests, mover])
    return Round(complete_s, used_s, ready_s, first_bytes, changed_bytes, joined_per_s)


async def _ready(place: Place, id: str) -> float:
    """When it was, by the service's clock."""
    for _ in range(600):
        page = await asyncio.to_thread(place.api.call, "GET", "/contexts", live="true")
        found = next(each for each in page["items"] if each["id"] == id)
        if found["state"] == "ready":
            return float(found["ready_at"])
        await asyncio.sleep(0.1)
    raise TimeoutError("the context is not ready after 60 s")


async def _at_once(place: Place, contexts: int, members: int) -> float:
    ids, guests = _guests(place, contexts, members)
    await all_of(guests, "join")
    await all_of(guests, "hear")
    waiting = [asyncio.create_task(_report_and_hear(guest, members)) for guest in guests]
    began_at = time.perf_counter()
    await asyncio.gather(*waiting)
    took_s = max(guest.heard_at for guest in guests) - began_at
    await _end(place, ids, guests)
    return took_s


async def _report_and_hear(guest: Guest, members: int) -> None:
    await guest.report()
    await guest.hear_of(members)


def _allow_files() -> None:
    """Each guest has a connection, and both of its ends are on this machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
