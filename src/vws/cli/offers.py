"""Offers in words, each with the options of `vws lease request` that take it.

An offer is taken by the same command again with these options instead of those that said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from vws.cli.times import show_time
from vws.core.spans import show_exactly

EXCEPTIONS_SHOWN = 5

Json = dict[str, Any]


def offer_facts(offers: Iterable[Any]) -> list[tuple[str, str]]:
    """A line for each, and for each exception of a rule."""
    facts: list[tuple[str, str]] = []
    for offer in offers:
        facts.append(("would fit", show_offer(offer)))
        if isinstance(offer, dict):
            facts += _exceptions(offer.get("skipped") or [])
    return facts


def show_offer(offer: Any) -> str:
    if not isinstance(offer, dict):
        return str(offer)
    said = str(offer.get("text") or ", ".join(f"{key}={value}" for key, value in offer.items()))
    options = options_of(offer)
    return f"{said} ({options})" if options else said


def options_of(offer: Json) -> str:
    """The options that ask for it; "" for one of a kind that is not known here."""
    match offer.get("kind"):
        case "fewer":
            return f"-n {offer['count']}"
        case "shorter":
            return f"--for {show_exactly(offer['duration_s'])}"
        case "later" | "sooner":
            return f"--at {_written(offer['start'])}"
        case "deadline":
            return f"--by {_written(offer['deadline'])}"
        case "smaller":
            return f"-n 1 --cpus {offer['cpus']} --memory {offer['memory_mib']}MiB --disk {offer['disk_mib']}MiB"
        case "now":
            return "without --at"
        case "exceptions":
            return "--skip-exceptions"
    return ""


def _written(at: int) -> str:
    """As options take it: on the reader's clock, and still the same instant on another."""
    return datetime.fromtimestamp(at).astimezone().isoformat()


def _exceptions(skipped: list[Json]) -> Iterator[tuple[str, str]]:
    for each in skipped[:EXCEPTIONS_SHOWN]:
        yield f"not at {show_time(each['start'])}", str(each["reason"])
    if len(skipped) > EXCEPTIONS_SHOWN:
        yield "not", f"at {len(skipped) - EXCEPTIONS_SHOWN} more"
