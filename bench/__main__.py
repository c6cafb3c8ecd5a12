"""`python -m bench`: run the benches, print their tables, keep their results."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from bench import machine, results
from bench.measure import Section

# In this order: what needs real virtual machines last, for it takes longest.
BENCHES = (
    "planner",
    "planning",
    "simulation",
    "cli",
    "scale",
    "contexts",
    "images",
    "building",
    "disks",
    "idle",
    "overhead",
    "ready",
    "saving",
)
RESULTS = machine.ROOT / "bench" / "RESULTS.md"


def main() -> int:
    options = _options()
    stamp = machine.stamp()
    print(stamp, flush=True)
    sections = [_run(name, options.quick) for name in BENCHES if name in (options.names or BENCHES)]
    if not options.quick:
        results.update(RESULTS, sections, stamp)
        print(f"\nwritten to {RESULTS.relative_to(machine.ROOT)}")
    missed = [f"{s.name}: {n.what}" for s in sections for n in s.numbers if n.missed]
    for line in missed:
        print(f"MISSED: {line}")
    return 0  # a target missed is a finding; measuring it succeeded


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what VWS promises.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: do the benches work? Writes nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHES))
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    return options


def _run(name: str, quick: bool) -> Section:
    print(f"\n{name} ...", flush=True)
    begin = time.perf_counter()
    section: Section = importlib.import_module(f"bench.{name}").run(quick)
    print(f"{section.title} ({time.perf_counter() - begin:.0f} s)\n{section.how}\n")
    print("\n".join(results.table(section.numbers)), flush=True)
    return section


if __name__ == "__main__":
    sys.exit(main())
