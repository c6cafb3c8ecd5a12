"""1,000 workspaces in 100 leases on 200 simulated nodes whose every step takes no time.

What remains is the service's own work: deciding, committing, telling 200 agents, taking in what they report. The same
on SQLite and on PostgreSQL, a fresh site for each round and the stores in turn. PostgreSQL runs on this machine too,
with its defaults, waiting for the disk as SQLite does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.measure import Number, Section, median, percentile, spread
from bench.processes import Usage
from bench.sites import Api, await_active, fake_site, request_leases
from tests.postgres import Server

LIMIT_S = 120
# Two hundred agents that have just come up still have things to say.
SETTLE_S = 2.0


@dataclass(frozen=True)
class Size:
    nodes: int
    leases: int
    members: int
    clients: tuple[int, ...]
    rounds: int


FULL = Size(nodes=200, leases=100, members=10, clients=(4, 8), rounds=3)
QUICK = Size(nodes=4, leases=4, members=5, clients=(2,), rounds=1)


@dataclass(frozen=True)
class Round:
    """active_s: from the first request sent until the last workspace ran. request_s: of each lease request."""

    active_s: float
    requesting_s: float
    request_s: tuple[float, ...]
    service: Usage
    service_cpu_s: float
    agent_cpu_s: float


def run(quick: bool, stores: tuple[str, ...] = ("sqlite", "postgresql")) -> Section:
    size = QUICK if quick else FULL
    rounds: dict[tuple[str, int], list[Round]] = {}
    with contextlib.ExitStack() as stack:
        servers = Databases(stack)
        for _ in range(size.rounds):
            for clients in size.clients:
                for store in stores:
                    with servers.url(store) as url:
                        rounds.setdefault((store, clients), []).append(_round(size, url, clients, stack))
    numbers = [number for (store, clients), each in rounds.items() for number in _numbers(size, store, clients, each)]
    if len(stores) == 2:
        numbers += [_ratio(rounds, clients) for clients in size.clients]
    workspaces = size.leases * size.members
    how = (
        f"{workspaces} workspaces in {size.leases} leases on {size.nodes} simulated nodes with zero step times, asked "
        f"for over TLS by {' and '.join(map(str, size.clients))} parallel connections. Medians of {size.rounds} fresh "
        "sites each, percentiles over all their requests; targets are for SQLite. For comparison: OpenNebula published "
        "53 s for 512 simultaneous VMs after tuning."
    )
    return Section("scale", f"{workspaces} workspaces at once", how, tuple(numbers))


class Databases:
    """A database for each round; the server starts when one first needs it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._server: Server | None = None

    @contextlib.contextmanager
    def url(self, store: str) -> Iterator[str]:
        if store == "sqlite":
            yield "sqlite"
            return
        if self._server is None:
            self._server = self._stack.enter_context(Server(durable=True))
        name = self._server.new_name()
        try:
            yield self._server.create(name)
        finally:
            self._server.drop(name)


def _round(size: Size, store: str, clients: int, later: contextlib.ExitStack) -> Round:
    with fake_site(size.nodes, store=store, later=later) as site, Api(site.path) as api:
        time.sleep(SETTLE_S if size is FULL else 0)
        before = {process: site.usage(process).cpu_s for process in ("service", "agent")}
        spans = request_leases(site.path, size.leases, size.members, clients)
        begin = min(asked for asked, _ in spans)
        active_at = await_active(api, LIMIT_S)
        service, agent = site.usage("service"), site.usage("agent")
        return Round(
            active_at - begin,
            max(answered for _, answered in spans) - begin,
            tuple(answered - asked for asked, answered in spans),
            service,
            service.cpu_s - before["service"],
            agent.cpu_s - before["agent"],
        )


def _numbers(size: Size, store: str, clients: int, rounds: list[Round]) -> list[Number]:
    judged = store == "sqlite"
    name = f"{store}, {clients} clients: "
    active = [r.active_s for r in rounds]
    requests_ms = [1000 * s for r in rounds for s in r.request_s]
    rate = size.leases / median([r.requesting_s for r in rounds])
    cpu = f"CPU: service {median([r.service_cpu_s for r in rounds]):.1f} s, agents "
    cpu += f"{median([r.agent_cpu_s for r in rounds]):.1f} s"
    peak = [r.service.peak_mib for r in rounds]
    pss = median([r.service.pss_mib for r in rounds])
    rate_beside = f"{size.leases * size.members / median(active):.0f} workspaces/s until active"
    p99 = percentile(requests_ms, 0.99)
    return [
        Number(name + "all active", median(active), "s", 10 if judged else None, f"{spread(active, 's')}; {cpu}"),
        Number(name + "lease request, p50", median(requests_ms), "ms", None, f"{rate:.0f} requests/s; {rate_beside}"),
        Number(name + "lease request, p99", p99, "ms", 100 if judged else None, spread(requests_ms, "ms")),
        Number(name + "service's memory, peak RSS", max(peak), "MiB", 200 if judged else None, f"PSS {pss:.0f} MiB"),
    ]


def _ratio(rounds: dict[tuple[str, int], list[Round]], clients: int) -> Number:
    sqlite, postgresql = (median([r.active_s for r in rounds[s, clients]]) for s in ("sqlite", "postgresql"))
    return Number(f"{clients} clients: all active, postgresql by sqlite", postgresql / sqlite, "×")
