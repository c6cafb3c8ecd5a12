"""Offers in words, each with what takes it: options of `vws lease request`, or of the command that was refused.

An offer is taken by the same command again with these options instead of those that said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from vws.cli.times import show_time
from vws.cli.wording import Wording
from vws.core.spans import show_exactly

EXCEPTIONS_SHOWN = 5
# Of a command that has every option.
EVERY = Wording()

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


def options_of(offer: Json, wording: Wording = EVERY) -> str:
    """The options that ask for it; "" for a kind that is not known here, or that the command has no options for."""
    if offer.get("kind") in ALONE:
        return ALONE[offer["kind"]]
    if offer.get("kind") not in KINDS:
        return ""
    if "group" in offer:
        rest = options_of({part: offer[part] for part in offer if part not in ("group", "count")}, wording)
        smaller = f"n={offer['count']} of --group {offer['group']}"
        return ", ".join(filter(None, (smaller, rest))) if wording.has("--group") else ""
    parts = [(option, show(offer[part])) for part, option, show in PARTS if part in offer]
    if not all(wording.has(option) for option, _ in parts):
        return ""
    return " ".join(f"{option} {value}" for option, value in parts)


def options_of_launch(offer: Json, fewer: Callable[[str, int], str]) -> str:
    """The same of `vws cluster launch`. fewer: what makes a group ("": the only one) so large."""
    if offer.get("kind") not in KINDS:
        return options_of(offer)
    rest = options_of({part: offer[part] for part in offer if part not in OF_GROUP})
    if "memory_mib" in offer:
        each = f"cpus: {offer['cpus']}, memory: {offer['memory_mib']}MiB, disk: {offer['disk_mib']}MiB"
        return ", ".join(filter(None, (f"count: 1, {each} of its group in the file", rest)))
    smaller = fewer(offer.get("group", ""), offer["count"]) if "count" in offer else ""
    return " ".join(filter(None, (smaller, rest)))


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


KINDS = ("fewer", "shorter", "later", "sooner", "deadline", "smaller", "combined")
ALONE = {"now": "without --at", "exceptions": "--skip-exceptions"}
OF_GROUP = ("group", "count", "cpus", "memory_mib", "disk_mib")
# The parts of a request that an offer changes, each with its option.
PARTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("count", "-n", str),
    ("cpus", "--cpus", str),
    ("memory_mib", "--memory", "{}MiB".format),
    ("disk_mib", "--disk", "{}MiB".format),
    ("duration_s", "--for", show_exactly),
    ("start", "--at", _written),
    ("deadline", "--by", _written),
)


def _exceptions(skipped: list[Json]) -> Iterator[tuple[str, str]]:
    for each in skipped[:EXCEPTIONS_SHOWN]:
        yield f"not at {show_time(each['start'])}", str(each["reason"])
    if len(skipped) > EXCEPTIONS_SHOWN:
        yield "not", f"at {len(skipped) - EXCEPTIONS_SHOWN} more"
