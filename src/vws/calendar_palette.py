"""The colours of leases in drawings, on light and on dark ground.

Twelve hues 30 degrees apart in OKLCH, every second one darker, so that
neighbours differ in two ways. Each is a pair: what a bar is filled with, on
which INK is read, and the accent in which its preparation, saved memory and
edges are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from vws.core.calendar import KINDS, colours

LIGHT = (
    ("#ffb4ad", "#9a3936"), ("#dc9a6c", "#934400"), ("#ecc980", "#7f5500"), ("#a9b267", "#5c6500"),
    ("#a5e0a5", "#207029"), ("#5dc0a7", "#007459"), ("#76e1ed", "#007080"), ("#67b5e1", "#00669b"),
    ("#aaceff", "#335aa6"), ("#aaa0e6", "#5e4da1"), ("#ebb9f7", "#7d418a"), ("#dc90b1", "#923965"),
)  # fmt: skip
DARK = (
    ("#83423e", "#fda19a"), ("#976038", "#f5ab77"), ("#6f530a", "#deb866"), ("#6d7533", "#bbc671"),
    ("#356537", "#90d192"), ("#24806c", "#66d5ba"), ("#006670", "#56d2df"), ("#31779b", "#71c9fa"),
    ("#3c578a", "#97beff"), ("#6e659f", "#bcb2ff"), ("#6e4677", "#dda7ea"), ("#965874", "#f5a0c5"),
)  # fmt: skip
INK = {"light": "#16191d", "dark": "#ffffff"}
# As far from each other as six of twelve can be.
OF_KIND = dict(zip(KINDS, (4, 8, 2, 11, 6, 0), strict=True))


def of_leases(leases: Iterable[str]) -> dict[str, int]:
    """The index of each lease's pair."""
    return colours(leases, len(LIGHT))
