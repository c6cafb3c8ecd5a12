"""How a site is configured to plan, as a simulation takes it: [planning] and, of [policy], who comes first and who may
suspend whom. The whole file is checked as the site itself checks it, so that what was tried can be used as it is.

Not taken: [rates], for a simulation is told its rates; limits, hosts and prices, for which a log says too little.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vws.config import SiteConfig, read
from vws.core.tariff import Tariff
from vws.planning import BACKFILL
from vws.policies import needs_modules


def configured(path: Path) -> dict[str, Any]:
    """Fields of a SimulatedPolicy as the `site.toml` in `path` has them, its defaults among them.

    Raises InvalidRequest naming the key that is wrong, OSError for a file that cannot be read.
    """
    config = read(path)
    if needs_modules(config.policy, Tariff()) and (own := str(path.resolve().parent / "policy")) not in sys.path:
        sys.path.append(own)
    return _planning(config) | {
        "order": config.policy.order,
        "preemption": config.policy.preemption,
        "half_life_days": config.policy.half_life_days,
        "members": config.members,
    }


def _planning(config: SiteConfig) -> dict[str, Any]:
    found = asdict(config.planning)
    if config.planning.backfill not in BACKFILL:
        found["backfill"] = int(config.planning.backfill)
    return found
