"""Offers in words, each with what takes it: options of `vws lease request`, or of the command that was refused.

An offer is taken by the same command again with these options instead of those that said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from vws.cli.times import show_time
from vws.core.spans import show_exactly

EXCEPTIONS_SHOWN = 5

Json = dict[str, Any]
# What takes an offer; "" where nothing of that command does.
Options = Callable[[Json], str]


def offer_facts(offers: Iterable[Any], options: Options | None = None) -> list[tuple[str, str]]:
    """A line for each, and for each exception of a rule. options: those of `vws lease request` by default."""
    facts: list[tuple[str, str]] = []
    for offer in offers:
        facts.append(("would fit", show_offer(offer, options or options_of)))
        if isinstance(offer, dict):
            facts += _exceptions(offer.get("skipped") or [])
    return facts


def show_offer(offer: Any, options: Options) -> str:
    if not isinstance(offer, dict):
        return str(offer)
    said = str(offer.get("text") or ", ".join(f"{key}={value}" for key, value in offer.items()))
    taking = options(offer)
    return f"{said} ({taking})" if taking else said


def options_of(offer: Json) -> str:
    """The options of `vws lease request` that ask for it; "" for one of a kind that is not known here."""
    match offer.get("kind"):
        case "fewer" if "group" in offer:
            return f"n={offer['count']} of --group {offer['group']}"
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


def options_of_launch(offer: Json, fewer: Callable[[str, int], str]) -> str:
    """The same of `vws cluster launch`. fewer: what makes a group ("": the only one) so large."""
    match offer.get("kind"):
        case "fewer":
            return fewer(offer.get("group", ""), offer["count"])
        case "smaller":
            each = f"cpus: {offer['cpus']}, memory: {offer['memory_mib']}MiB, disk: {offer['disk_mib']}MiB"
            return f"count: 1, {each} of its group in the file"
        case "addresses":
            return ""
    return options_of(offer)


def options_of_growth(offer: Json, cluster: str, group: str) -> str:
    """The same of `vws cluster grow`, which has but one: how many."""
    match offer.get("kind"):
        case "fewer" | "addresses":
            return f"vws cluster grow {cluster} {group}=+{offer['count']}"
        case "later":
            return "the same again then"
    return ""


def _written(at: int) -> str:
    """As options take it: on the reader's clock, and still the same instant on another."""
    return datetime.fromtimestamp(at).astimezone().isoformat()


def _exceptions(skipped: list[Json]) -> Iterator[tuple[str, str]]:
    for each in skipped[:EXCEPTIONS_SHOWN]:
        yield f"not at {show_time(each['start'])}", str(each["reason"])
    if len(skipped) > EXCEPTIONS_SHOWN:
        yield "not", f"at {len(skipped) - EXCEPTIONS_SHOWN} more"
