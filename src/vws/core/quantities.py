"""Sizes and durations as people write them: 160MiB, 1.5GiB, 30m, 1h30m, 10d.

A bare number is refused for durations and decimal units are refused for sizes:
`--for 90` and `--memory 1GB` each have two plausible meanings, and a guess that
is wrong costs a user an hour or 7 % of the memory. Whether a value makes sense
is for others to say; this module only reads, and shows sizes. Command line, cluster files and site.toml read alike.
"""

from __future__ import annotations

import re
from fractions import Fraction

MIB_OF_UNIT = {"": 1, "m": 1, "mib": 1, "g": 1024, "gib": 1024, "t": 1024**2, "tib": 1024**2}
MBIT_OF_UNIT = {"mbit": 1, "gbit": 1000}
SECONDS_OF_UNIT = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DIGITS_MAX = 15  # a slip of the pen must not become a number that no JSON reader takes

SIZE_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
DURATION_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(min|s|m|h|d|w)", re.ASCII)


def parse_size(text: str) -> int:
    """MiB of `text`; ValueError says what would be read."""
    match = SIZE_PATTERN.fullmatch(text.strip().lower())
    if not match or len(match[1]) > DIGITS_MAX:
        raise ValueError(f"{text!r} is not a size; write 160MiB, 1GiB or 1.5GiB")
    if match[2] in ("mb", "gb", "tb"):
        raise ValueError(f"{text!r} is a decimal unit; write {match[1]}{match[2][0].upper()}iB")
    if match[2] not in MIB_OF_UNIT:
        raise ValueError(f"{text!r} has an unknown unit; write MiB, GiB or TiB")
    size_mib = Fraction(match[1]) * MIB_OF_UNIT[match[2]]
    if size_mib.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of MiB")
    return int(size_mib)


def parse_bandwidth(text: str) -> int:
    """Mbit/s of `text`; ValueError says what would be read."""
    match = SIZE_PATTERN.fullmatch(text.strip().lower().removesuffix("/s"))
    if not match or len(match[1]) > DIGITS_MAX or match[2] not in MBIT_OF_UNIT:
        raise ValueError(f"{text!r} is no speed of a network; write 100Mbit or 1Gbit")
    mbit = Fraction(match[1]) * MBIT_OF_UNIT[match[2]]
    if mbit.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of Mbit")
    return int(mbit)


def parse_duration(text: str) -> int:
    """Seconds of `text`, whose parts add up (1h30m); ValueError says what would be read."""
    compact = text.strip().lower()
    parts = DURATION_PATTERN.findall(compact)
    if not parts or DURATION_PATTERN.sub("", compact).strip() or any(len(n) > DIGITS_MAX for n, _ in parts):
        hint = f"; which unit: {compact}s, {compact}m or {compact}h?" if compact.isdigit() and len(compact) < 9 else ""
        raise ValueError(f"{text!r} is not a duration{hint or '; write 90s, 30m, 2h, 1h30m or 10d'}")
    duration_s = sum(Fraction(number) * SECONDS_OF_UNIT[unit] for number, unit in parts)
    if Fraction(duration_s).denominator != 1:
        raise ValueError(f"{text!r} is no whole number of seconds")
    return int(duration_s)


def show_size(mib: float | None) -> str:
    if mib is None:
        return "-"
    for unit, factor in (("TiB", 1024**2), ("GiB", 1024)):
        if mib >= factor:
            return f"{mib / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{mib:.0f} MiB"


def show_bytes(count: float) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1024**2 else show_size(round(count / 1024**2, 1))
