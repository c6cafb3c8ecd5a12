"""What Prometheus reads: the site's counts, and what this process did.

How long leases took to become active is read from the record of events when somebody scrapes, so that it costs
nothing while nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vws import __version__
from vws.core.site import Lease
from vws.ports import Filter
from vws.service.site import Site

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EVENTS_PER_SCRAPE_MAX = 50_000
_PAGE = 1000
_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LEASE_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class Metrics:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._seq = site.seq
        self._lock = threading.Lock()
        self._registry = registry = CollectorRegistry()
        self.requests = Histogram(
            "vws_request_seconds", "Duration of requests that do not wait for news.", ["operation", "status"],
            registry=registry, buckets=_REQUEST_S,
        )  # fmt: skip
        self._leases = Histogram(
            "vws_lease_active_seconds", "From a lease's request to its first being active.",
            registry=registry, buckets=_LEASE_S,
        )  # fmt: skip
        self.reports = Counter("vws_reports_total", "Reports taken in from nodes.", registry=registry)
        self.orders = Counter("vws_orders_total", "Orders sent to nodes.", registry=registry)
        self._build_info(registry)
        registry.register(_Counts(site))

    def watch(self, waiting: Callable[[], tuple[int, int]], tunnels: Callable[[], int]) -> None:
        """Show how many wait for news, and how many tunnels are open."""
        for name, text, look in (
            ("vws_long_polls", "Nodes waiting for orders.", lambda: waiting()[0]),
            ("vws_followers", "Clients following events.", lambda: waiting()[1]),
            ("vws_tunnels", "Tunnels between users and guests.", tunnels),
        ):
            Gauge(name, text, registry=self._registry).set_function(look)

    @staticmethod
    def _build_info(registry: CollectorRegistry) -> None:
        Gauge("vws_build_info", "The running version.", ["version"], registry=registry).labels(__version__).set(1)

    def text(self) -> bytes:
        with self._lock:
            self._read_events()
            return generate_latest(self._registry)

    def _read_events(self) -> None:
        for _ in range(EVENTS_PER_SCRAPE_MAX // _PAGE):
            events = self._site.store.events(Filter(), after=self._seq, limit=_PAGE)
            for event in events:
                self._seq = event.seq
                if event.kind == "lease.active":
                    self._observe(self._site.store.get(Lease, event.lease), event.at)
            if len(events) < _PAGE:
                return

    def _observe(self, lease: Lease | None, at: float) -> None:
        # A lease that was degraded becomes active again; only the first time counts.
        if lease is not None and lease.active_at is not None and abs(lease.active_at - at) < 0.001:
            self._leases.observe(lease.active_at - lease.created_at)


class _Counts(Collector):
    """Leases, workspaces and nodes by state, as they are at the moment of the scrape."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterator[Any]:
        for thing, by_state in self._site.counts().items():
            family = GaugeMetricFamily(f"vws_{thing}", f"Live {thing} by state.", labels=["state"])
            for state, count in by_state.items():
                family.add_metric([state], count)
            yield family
