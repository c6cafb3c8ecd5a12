"""What a site takes while nothing happens: agents without workspaces, and the service.

A real node and a simulated one, each with its own service, over the same minute. Processor time is the kernel's count
for the process; libvirtd and dnsmasq, which run on any host with libvirt, are told beside and not judged.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.measure import Number, Section
from bench.processes import Usage
from bench.sites import Api, BenchSite, fake_site, real_site

# Starting is not idling: caches fill, first reports go out.
SETTLE_S = 10.0


@dataclass(frozen=True)
class Idled:
    """Over the time watched: the share of one core in percent, and the memory at its end."""

    cpu_percent: float
    after: Usage


def run(quick: bool) -> Section:
    seconds, settle_s, with_real = (0.5, 0.2, False) if quick else (60.0, SETTLE_S, os.geteuid() == 0)
    with _sites(with_real) as sites:
        time.sleep(settle_s)
        idled = watch(sites, seconds)
    numbers = [number for (site, process), each in idled.items() for number in _numbers(site, process, each)]
    how = (
        f"Processes without workspaces, watched for {seconds:g} s after {settle_s:g} s to settle, all at the same time."
    )
    return Section("idle", "doing nothing", how, tuple(numbers))


@contextlib.contextmanager
def _sites(with_real: bool) -> Iterator[dict[str, BenchSite]]:
    with contextlib.ExitStack() as stack:
        sites = {"simulated node": stack.enter_context(fake_site(1))}
        if with_real:
            sites["real node"] = stack.enter_context(real_site())
        for site in sites.values():
            with Api(site.path) as api:
                assert not list(api.all("/workspaces", live="true"))
        yield sites


def watch(sites: dict[str, BenchSite], seconds: float) -> dict[tuple[str, str], Idled]:
    watched = [(name, process) for name in sites for process in ("agent", "service")]
    before = {(name, process): sites[name].usage(process) for name, process in watched}
    begin = time.monotonic()
    time.sleep(seconds)
    after = {(name, process): sites[name].usage(process) for name, process in watched}
    took_s = time.monotonic() - begin
    return {key: Idled(100 * (after[key].cpu_s - before[key].cpu_s) / took_s, after[key]) for key in watched}


def _numbers(site: str, process: str, idled: Idled) -> list[Number]:
    judged = process == "agent"
    memory = f"PSS {idled.after.pss_mib:.0f} MiB, peak {idled.after.peak_mib:.0f} MiB"
    return [
        Number(f"{site}, {process}: CPU", idled.cpu_percent, "% of a core", 0.5 if judged else None),
        Number(f"{site}, {process}: RSS", idled.after.rss_mib, "MiB", 80 if judged else None, memory),
    ]
