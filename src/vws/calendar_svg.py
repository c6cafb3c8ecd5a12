"""A calendar as a still picture: for documents, reports and the plots of simulations.

The same shapes and colours as the page's (vws/calendar_page.py), in SVG that
follows the reader's light or dark ground where it is shown by a browser. Below
a lane height of LOW there are no names and shapes, bars are gathered in one
path per colour and what is finer than a unit is left out: tens of thousands of
bars stay a picture that can be opened. The page is for looking closely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from vws import calendar_palette
from vws.calendar_axis import Clock, Tick, ticks
from vws.core.calendar import DATA, HARD, ROOMLESS, STEP_NAMES, Bar, Calendar, Row, Step, rows

AXIS, MARGIN, LEGEND_LINE = 46, 10, 24
LABEL_WIDTH = 6.4  # of a character of 12 units, on average
LOW = 10  # lane heights below it have room for shades only
FINEST = 0.3
SWATCH = (26, 14)
FONT = "system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif"
# Grounds: paper, band, ink, faint, line, strong, now.
GROUND = {
    "light": ("#ffffff", "#f6f7f9", "#1b1f24", "#667080", "#e1e5ea", "#b6bec9", "#d0342c"),
    "dark": ("#14171b", "#191d22", "#e8ebef", "#97a1ae", "#272d35", "#454e5a", "#ff7a70"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """Where time lies: [start, end) between `left` and `width`; a lane is `lane` high."""

    calendar: Calendar
    clock: Clock
    colour_of: dict[str, int]
    width: float
    left: float
    lane: float

    def x(self, at: float) -> float:
        share = (at - self.calendar.start) / (self.calendar.end - self.calendar.start)
        return self.left + min(max(share, 0.0), 1.0) * (self.width - self.left)

    @property
    def thin(self) -> float:
        return max(1.0, min(6.0, self.lane * 0.2))


def render_svg(calendar: Calendar, *, width: int = 960, lane_height: float = 30, clock: Clock | None = None) -> str:
    """`calendar` as an SVG document, `width` units wide and as high as its lanes, axis and legend need.

    clock: UTC if not given, always the simulation's own for a simulated calendar.
    """
    clock = Clock(virtual=True) if calendar.virtual else clock or Clock()
    longest = max((len(node) for node in calendar.nodes), default=0)
    left = min(longest * LABEL_WIDTH + 20, width / 3)
    frame = Frame(calendar, clock, calendar_palette.of_leases(b.lease for b in calendar.bars), width, left, lane_height)
    found = rows(calendar)
    gap = 10 if lane_height >= 20 else 2
    foot = AXIS + sum(row.lanes * lane_height + gap for row in found)
    legend = list(_legend(frame, foot + LEGEND_LINE))
    height = foot + LEGEND_LINE * (2 + _legend_lines(frame) - 1)
    ground = [*_bands(frame, found, gap), *_grid(frame, foot)]
    drawn = [*ground, *_rows(frame, found, gap), *_future(frame, foot), *_axis(frame), *legend]
    return "\n".join([*_head(calendar, width, height), *drawn, "</svg>", ""])


def _head(calendar: Calendar, width: float, height: float) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" role="img" aria-label={quoteattr(_text(calendar.title or "Calendar"))} '
        f'font-family="{FONT}" font-size="12">'
    )
    yield f"<style>{_style('light')}@media (prefers-color-scheme: dark) {{{_style('dark')}}}</style>"
    yield "<defs>" + "".join(_hatch(i, name) for i in range(len(calendar_palette.LIGHT)) for name in ("up", "down"))
    yield "</defs>"
    yield f'<rect class="paper" width="{_n(width)}" height="{_n(height)}"/>'


def _style(ground: str) -> str:
    paper, band, ink, faint, line, strong, now = GROUND[ground]
    pairs = calendar_palette.LIGHT if ground == "light" else calendar_palette.DARK
    bars = "".join(
        f".f{i}{{fill:{fill}}}.a{i}{{fill:{accent}}}.s{i}{{stroke:{accent}}}" for i, (fill, accent) in enumerate(pairs)
    )
    return (
        f".paper{{fill:{paper}}}.band{{fill:{band}}}.ink{{fill:{ink}}}.faint{{fill:{faint}}}.line{{fill:{line}}}"
        f".strong{{fill:{strong}}}.now{{fill:{now}}}.label{{fill:{calendar_palette.INK[ground]}}}"
        f".veil{{fill:{paper};opacity:.45}}{bars}"
    )


def _hatch(index: int, name: str) -> str:
    line = "M-1 7L7 -1M-1 1L1 -1M5 7L7 5" if name == "up" else "M-1 -1L7 7M-1 5L1 7M5 -1L7 1"
    return (
        f'<pattern id="{name}{index}" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<rect class="f{index}" width="6" height="6"/><path class="s{index}" stroke-width="1.4" d="{line}"/></pattern>'
    )


# ---------------------------------------------------------------- rows and bars


def _bands(frame: Frame, found: Sequence[Row], gap: float) -> Iterator[str]:
    """Every second row is shaded, where rows are high enough to be told apart."""
    top = float(AXIS)
    for number, row in enumerate(found):
        height = row.lanes * frame.lane + gap
        if number % 2 and frame.lane >= LOW:
            yield _box(0, top, frame.width, height, 'class="band"', "")
        top += height


def _rows(frame: Frame, found: Sequence[Row], gap: float) -> Iterator[str]:
    top = float(AXIS)
    for number, row in enumerate(found):
        height = row.lanes * frame.lane + gap
        if frame.lane >= LOW or number % (1 + int(12 / frame.lane)) == 0:
            middle = top + gap / 2 + min(frame.lane, 30) / 2 + 4
            yield _label(row.node, 10, middle, (frame.left - 14) / LABEL_WIDTH, "ink")
        if frame.lane >= LOW:
            yield from _bars(frame, row, top, gap)
        top += height
    if frame.lane < LOW:
        yield from _shades(frame, found, gap)


def _shades(frame: Frame, found: Iterable[Row], gap: float) -> Iterator[str]:
    """All bars of a colour as one path; machines only, for a line along a low lane would hide them."""
    paths: dict[str, list[str]] = {}
    top = float(AXIS)
    for row in found:
        drawn = [-1.0] * row.lanes
        for bar, lane in zip(row.bars, row.lane_of, strict=True):
            x0, x1 = frame.x(bar.start), frame.x(bar.end)
            least = FINEST if bar.step is Step.RUN else 1
            if bar.step in ROOMLESS or x1 - x0 < least or x1 - drawn[lane] < 2 * FINEST:
                continue
            drawn[lane] = x1
            css = f"{'f' if bar.step is Step.RUN else 'a'}{frame.colour_of[bar.lease]}"
            corner = f"M{_n(x0)} {_n(top + gap / 2 + lane * frame.lane)}"
            paths.setdefault(css, []).append(f"{corner}h{_n(x1 - x0)}v{_n(frame.lane)}h-{_n(x1 - x0)}z")
        top += row.lanes * frame.lane + gap
    for css, shapes in sorted(paths.items()):
        yield f'<path class="{css}" d="{"".join(shapes)}"/>'


def _bars(frame: Frame, row: Row, top: float, gap: float) -> Iterator[str]:
    def depth(bar: Bar) -> int:  # maintenance behind, data before
        return 0 if bar.step is Step.MAINTENANCE else 2 if bar.step in DATA else 1

    drawn: dict[tuple[int, int], float] = {}
    for bar, lane in sorted(zip(row.bars, row.lane_of, strict=True), key=lambda found: depth(found[0])):
        x0, x1 = frame.x(bar.start), frame.x(bar.end)
        track = (lane, depth(bar))
        if x1 - x0 < FINEST and x1 - drawn.get(track, -1.0) < FINEST:
            continue
        drawn[track] = x1
        if bar.step is Step.MAINTENANCE:
            yield from _maintenance(bar, x0, top, x1 - x0, row.lanes * frame.lane + gap)
        else:
            y = top + gap / 2 + lane * frame.lane
            yield from _bar(frame, bar, frame.colour_of[bar.lease], x0, y, max(x1 - x0, FINEST))


def _bar(frame: Frame, bar: Bar, colour: int, x: float, y: float, width: float) -> Iterator[str]:
    """One bar with its upper left corner at (x, y); its name where there is room."""
    height, thin = frame.lane - 2, frame.thin
    hint = f"<title>{escape(_text(_hint(frame, bar)))}</title>"
    low = y + height - thin
    if bar.step in DATA:
        dashes = {Step.STAGE: "3 3", Step.MIGRATE: "9 3", Step.SAVED: "none"}[bar.step]
        line = f'<path class="s{colour}" stroke-width="{_n(thin)}" stroke-dasharray="{dashes}" '
        yield f'{line}d="M{_n(x)} {_n(low + thin / 2)}H{_n(x + width)}">{hint}</path>'
    elif bar.step in (Step.SUSPEND, Step.RESUME):
        before, after = (y, low) if bar.step is Step.SUSPEND else (low, y)
        yield _box(x, y, width, height, f'class="f{colour}" opacity=".4"', "")
        outline = f"M{_n(x)} {_n(before)}L{_n(x + width)} {_n(after)}V{_n(y + height)}H{_n(x)}Z"
        yield f'<path class="a{colour}" d="{outline}">{hint}</path>'
    elif bar.step in (Step.BOOT, Step.SHUTDOWN):
        name = "up" if bar.step is Step.BOOT else "down"
        yield _box(x, y, width, height, f'fill="url(#{name}{colour})"', hint)
    else:
        yield _box(x, y, width, height, f'class="f{colour}"', hint)
        if bar.kind in HARD and height >= 8:
            yield _box(x, y, width, 2, f'class="a{colour}"', "")
        if height >= 11:
            yield _label(bar.label, x + 6, y + height / 2 + 4, (width - 10) / LABEL_WIDTH, "label")


def _maintenance(bar: Bar, x: float, y: float, width: float, height: float) -> Iterator[str]:
    yield _box(x, y, width, height, 'class="line"', f"<title>{escape(_text(bar.label))}: maintenance</title>")
    yield _label(bar.label or "maintenance", x + 6, y + height / 2 + 4, (width - 10) / LABEL_WIDTH, "faint")


def _hint(frame: Frame, bar: Bar) -> str:
    return f"{bar.label} ({bar.kind}), {STEP_NAMES[bar.step]} on {bar.node}, {frame.clock.span(bar.start, bar.end)}"


# ---------------------------------------------------------------- around the bars


def _ticks(frame: Frame) -> Iterator[Tick]:
    most = max(2, int((frame.width - frame.left) / 90))
    return ticks(frame.calendar.start, frame.calendar.end, most, frame.clock)


def _grid(frame: Frame, foot: float) -> Iterator[str]:
    for tick in _ticks(frame):
        yield _box(frame.x(tick.at), AXIS, 0.8, foot - AXIS, f'class="{"strong" if tick.major else "line"}"', "")
    yield _box(frame.left, AXIS, 0.8, foot - AXIS, 'class="strong"', "")


def _axis(frame: Frame) -> Iterator[str]:
    calendar, clock = frame.calendar, frame.clock
    yield _box(0, AXIS - 1, frame.width, 1, 'class="strong"', "")
    first = _text(calendar.title)
    yield f'<text class="ink" x="10" y="15" font-weight="600">{escape(first)}</text>'
    when = f"{clock.span(calendar.start, calendar.end)}, {clock.name}"
    yield f'<text class="faint" x="{_n(frame.width - 10)}" y="15" text-anchor="end">{when}</text>'
    for tick in _ticks(frame):
        x = frame.x(tick.at)
        yield _box(x, 26, 0.8, AXIS - 26, 'class="strong"', "")
        if x + len(tick.label) * LABEL_WIDTH < frame.width:
            weight = "ink" if tick.major else "faint"
            yield f'<text class="{weight}" x="{_n(x + 4)}" y="36">{tick.label}</text>'


def _future(frame: Frame, foot: float) -> Iterator[str]:
    now = frame.calendar.now
    if now is None or not frame.calendar.start <= now < frame.calendar.end:
        return
    x = frame.x(now)
    yield _box(x, AXIS, frame.width - x, foot - AXIS, 'class="veil"', "")
    yield _box(x - 0.75, AXIS - 6, 1.5, foot - AXIS + 6, 'class="now"', "")
    yield f'<path class="now" d="M{_n(x - 5)} {AXIS - 9}H{_n(x + 5)}L{_n(x)} {AXIS - 1}Z"/>'


def _legend(frame: Frame, y: float) -> Iterator[str]:
    for name, bar, x, line in _legend_places(frame):
        top = y + line * LEGEND_LINE
        sample = Frame(frame.calendar, frame.clock, frame.colour_of, frame.width, frame.left, SWATCH[1])
        yield from _bar(sample, bar, 8, x, top - SWATCH[1] + 2, SWATCH[0])
        yield f'<text class="ink" x="{_n(x + SWATCH[0] + 6)}" y="{_n(top)}">{name}</text>'


def _legend_places(frame: Frame) -> Iterator[tuple[str, Bar, float, int]]:
    """(name, sample, x, line) of each step that is drawn, in as many lines as the width asks for."""
    x, line = 10.0, 0
    if frame.lane < LOW:
        return
    present = {bar.step for bar in frame.calendar.bars} - {Step.MAINTENANCE}
    steps = [(STEP_NAMES[step], step, "") for step in Step if step in present]
    if any(bar.kind in HARD for bar in frame.calendar.bars):
        steps.append(("fixed: never moved", Step.RUN, min(HARD)))
    for name, step, kind in steps:
        width = SWATCH[0] + 6 + len(name) * LABEL_WIDTH + 14
        if x + width > frame.width:
            x, line = 10.0, line + 1
        yield name, Bar("", 0, 1, step, "", "", kind), x, line
        x += width


def _legend_lines(frame: Frame) -> int:
    return max((line for *_, line in _legend_places(frame)), default=0) + 1


def _box(x: float, y: float, width: float, height: float, attributes: str, within: str) -> str:
    shape = f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" {attributes}'
    return f"{shape}>{within}</rect>" if within else f"{shape}/>"


def _label(text: str, x: float, y: float, room: float, css: str) -> str:
    """`text` cut to `room` characters, nothing if that would say nothing."""
    shown = _text(text)
    if len(shown) > room:
        shown = f"{shown[: int(room) - 1]}…" if room >= 5 else ""
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}">{escape(shown)}</text>' if shown else ""


def _text(text: str) -> str:
    """What XML may hold of it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
