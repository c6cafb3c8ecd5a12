"""Lengths of time in words."""

from __future__ import annotations

SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def show_duration(seconds: float) -> str:
    """The two largest units, as much as one wants to know: 1h59m, 10m, 42s, 2d3h."""
    left = max(0, round(seconds))
    shown = []
    for unit in ("d", "h", "m", "s"):
        number, left = divmod(left, SECONDS_OF_UNIT[unit])
        if number:
            shown.append(f"{number}{unit}")
        elif shown:
            break
    return "".join(shown[:2]) or "0s"


def show_exactly(seconds: int) -> str:
    """Every unit that it takes: 1h59m42s."""
    left = max(0, seconds)
    shown = []
    for unit in ("d", "h", "m", "s"):
        number, left = divmod(left, SECONDS_OF_UNIT[unit])
        if number:
            shown.append(f"{number}{unit}")
    return "".join(shown) or "0s"
