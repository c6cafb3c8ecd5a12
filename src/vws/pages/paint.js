"use strict";
// Everything that is put on a canvas. A step is told from another by shape as well as by shade: preparation is hatched,
// a suspension slopes down to the thin line of what it saved, a resumption slopes up from it.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const LABEL_MIN_PX = 34, DETAIL_MIN_PX = 4, TICK_PX = 90;
const PREPARES = new Set(["boot", "suspend", "resume", "shutdown", "stage", "migrate", "saved"]);

class Paint {
  constructor(plan, clock) {
    this.plan = plan;
    this.clock = clock;
    this.byKind = false;
    this.picked = null; // leases that are shown fully, the others faintly: a Set of indices, or null
    this.current = -1; // the bar that the keyboard is on
    this.readTheme();
  }

  // Print is always on white paper, whatever the screen is.
  readTheme() {
    const dark = matchMedia("screen and (prefers-color-scheme: dark)").matches;
    const style = getComputedStyle(document.documentElement);
    this.colour = {};
    for (const name of ["paper", "band", "ink", "faint", "line", "strong", "veil", "now", "accent", "shade", "closed"]) {
      this.colour[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.palette = this.plan.palette[dark ? "dark" : "light"];
    this.barInk = this.plan.ink[dark ? "dark" : "light"];
    this.hatches = new Map();
    this.widths = new Map();
  }

  // [fill, accent] of a lease.
  pair(lease) {
    const [, , kind, , own] = this.plan.leases[lease];
    return this.palette[this.byKind ? this.plan.colour_of_kind[kind] ?? 0 : own];
  }

  hatch(ctx, name, fill, accent) {
    const key = name + fill;
    if (!this.hatches.has(key)) this.hatches.set(key, ctx.createPattern(this.hatchTile(name, fill, accent), "repeat"));
    return this.hatches.get(key);
  }

  hatchTile(name, fill, accent) {
    const tile = new OffscreenCanvas(6, 6), ctx = tile.getContext("2d");
    ctx.fillStyle = fill;
    ctx.fillRect(0, 0, 6, 6);
    ctx.strokeStyle = accent;
    ctx.lineWidth = 1.4;
    ctx.beginPath();
    for (const shift of [-6, 0, 6]) {
      if (name !== "falling") { ctx.moveTo(shift - 1, 7); ctx.lineTo(shift + 7, -1); }
      if (name !== "rising") { ctx.moveTo(shift - 1, -1); ctx.lineTo(shift + 7, 7); }
    }
    ctx.stroke();
    return tile;
  }

  // ---- one bar

  bar(ctx, step, fill, accent, x, y, width, height, thin, hard) {
    // Too small for a shape, or too many to draw: a shade has to do.
    if (width < DETAIL_MIN_PX || (height < DETAIL_MIN_PX && thin < 2.5)) {
      ctx.fillStyle = step === "maintenance" ? this.colour.closed : PREPARES.has(step) ? accent : fill;
      ctx.fillRect(x, y, width, height);
      return;
    }
    const sloped = { suspend: [0, 1], resume: [1, 0] }[step];
    if (sloped) this.slope(ctx, fill, accent, x, y, width, height, thin, sloped);
    else if (step === "stage") this.dashes(ctx, accent, x, y, width, height, 3, 3);
    else if (step === "migrate") this.dashes(ctx, accent, x, y, width, height, 9, 3);
    else {
      ctx.fillStyle = this.style(ctx, step, fill, accent);
      ctx.fillRect(x, y, width, height);
    }
    if (step === "run" && hard && height >= 8) {
      ctx.fillStyle = accent;
      ctx.fillRect(x, y, width, 2);
    }
  }

  style(ctx, step, fill, accent) {
    const hatched = { boot: "rising", shutdown: "falling" }[step];
    if (step === "saved") return accent;
    if (step === "maintenance") return this.hatch(ctx, "both", this.colour.band, this.colour.line);
    return hatched ? this.hatch(ctx, hatched, fill, accent) : fill;
  }

  slope(ctx, fill, accent, x, y, width, height, thin, [from, to]) {
    const drop = height - Math.min(thin, height);
    ctx.fillStyle = fill;
    ctx.globalAlpha *= 0.4;
    ctx.fillRect(x, y, width, height);
    ctx.globalAlpha /= 0.4;
    ctx.fillStyle = accent;
    ctx.beginPath();
    ctx.moveTo(x, y + from * drop);
    ctx.lineTo(x + width, y + to * drop);
    ctx.lineTo(x + width, y + height);
    ctx.lineTo(x, y + height);
    ctx.fill();
  }

  dashes(ctx, accent, x, y, width, height, dash, gap) {
    ctx.strokeStyle = accent;
    ctx.lineWidth = height;
    ctx.setLineDash([dash, gap]);
    ctx.beginPath();
    ctx.moveTo(x, y + height / 2);
    ctx.lineTo(x + width, y + height / 2);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  // ---- all of it

  draw(ctx, view) {
    ctx.fillStyle = this.colour.paper;
    ctx.fillRect(0, 0, view.width, view.height);
    this.bands(ctx, view);
    const ticks = this.clock.ticks(view.start, view.end, Math.max(2, Math.floor(view.plotWidth / TICK_PX)));
    this.grid(ctx, view, ticks);
    const labels = this.bars(ctx, view);
    this.future(ctx, view);
    this.labels(ctx, view, labels);
    this.outline(ctx, view);
    this.axis(ctx, view, ticks);
    this.names(ctx, view);
    this.present(ctx, view);
  }

  bands(ctx, view) {
    ctx.fillStyle = this.colour.band;
    this.eachRow(view, (row, y, height) => { if (row % 2) ctx.fillRect(0, y, view.width, height); });
  }

  eachRow(view, visit) {
    const last = Math.min(view.rowAt(view.height - 1), this.plan.nodes.length - 1);
    for (let row = Math.max(0, view.rowAt(AXIS_PX)); row <= last; row++) visit(row, view.rowTop(row), view.rowHeight(row));
  }

  grid(ctx, view, ticks) {
    for (const { at, midnight } of ticks) {
      ctx.fillStyle = midnight ? this.colour.strong : this.colour.line;
      ctx.fillRect(Math.round(view.x(at)), AXIS_PX, 1, view.height - AXIS_PX);
    }
  }

  bars(ctx, view) {
    const { plan, picked } = this, thin = view.thin, labels = [];
    view.eachBar((i, x0, x1, y, height) => {
      const lease = plan.lease[i], step = plan.steps[plan.step[i]], faint = picked !== null && !picked.has(lease);
      const [fill, accent] = this.pair(lease), width = x1 - x0;
      ctx.globalAlpha = faint ? 0.14 : 1;
      // A hair of paper at the end tells a bar from the next of its colour.
      this.bar(ctx, step, fill, accent, x0, y, width > 8 ? width - 0.75 : width, height, thin, plan.isHard[lease]);
      const named = step === "run" || step === "maintenance";
      if (named && !faint && width >= LABEL_MIN_PX && height >= 11) labels.push([lease, x0, width, y, height]);
    });
    ctx.globalAlpha = 1;
    return labels;
  }

  labels(ctx, view, labels) {
    ctx.font = `${Math.min(12, Math.max(9, view.lane * 0.6))}px ${FONT}`;
    ctx.textBaseline = "middle";
    ctx.fillStyle = this.barInk;
    for (const [lease, x, width, y, height] of labels) {
      const text = this.cut(ctx, this.plan.leases[lease][1], width - 10);
      if (text) ctx.fillText(text, x + 5, y + height / 2 + 1);
    }
  }

  // As much of a text as fits, none if that says nothing.
  cut(ctx, text, width) {
    if (this.measure(ctx, text) <= width) return text;
    const room = Math.floor((width / this.measure(ctx, text)) * text.length) - 1;
    return room < 5 ? "" : `${text.slice(0, room)}…`;
  }

  measure(ctx, text) {
    const key = ctx.font + text;
    if (!this.widths.has(key)) this.widths.set(key, ctx.measureText(text).width);
    return this.widths.get(key);
  }

  // What is not yet so is paler.
  future(ctx, view) {
    if (this.plan.now === null) return;
    const x = Math.max(view.x(this.plan.now), view.left);
    ctx.fillStyle = this.colour.veil;
    if (x < view.width) ctx.fillRect(x, AXIS_PX, view.width - x, view.height - AXIS_PX);
  }

  outline(ctx, view) {
    if (this.current < 0) return;
    const box = boxOf(view, this.current);
    ctx.strokeStyle = this.colour.ink;
    ctx.lineWidth = 2;
    ctx.strokeRect(box.x - 1, box.y - 1, box.width + 2, box.height + 2);
  }

  // ---- around the bars

  axis(ctx, view, ticks) {
    ctx.fillStyle = this.colour.paper;
    ctx.fillRect(0, 0, view.width, AXIS_PX);
    ctx.fillStyle = this.colour.strong;
    ctx.fillRect(0, AXIS_PX - 1, view.width, 1);
    ctx.textBaseline = "alphabetic";
    ctx.font = `600 12px ${FONT}`;
    ctx.fillStyle = this.colour.ink;
    const fresh = ticks.filter(({ midnight }) => midnight), days = ticks.every(({ midnight }) => midnight);
    const first = this.clock.day(view.start);
    if (!days && !(fresh.length && view.x(fresh[0].at) - view.left < this.measure(ctx, first) + 14)) {
      ctx.fillText(first, view.left + 4, 15);
    }
    for (const { at, label, midnight } of ticks) {
      const x = Math.round(view.x(at));
      ctx.fillStyle = midnight ? this.colour.ink : this.colour.faint;
      ctx.font = midnight ? `600 12px ${FONT}` : `12px ${FONT}`;
      ctx.fillText(label, x + 4, midnight ? 15 : 31);
      if (midnight && !days) this.clockOf(ctx, at, x);
      ctx.fillRect(x, midnight ? 4 : 22, 1, AXIS_PX - (midnight ? 4 : 22));
    }
  }

  clockOf(ctx, at, x) {
    ctx.font = `12px ${FONT}`;
    ctx.fillStyle = this.colour.faint;
    ctx.fillText(this.clock.time(at), x + 4, 31);
  }

  names(ctx, view) {
    ctx.fillStyle = this.colour.paper;
    ctx.fillRect(0, 0, view.left, AXIS_PX - 1);
    ctx.textBaseline = "middle";
    ctx.font = `12px ${FONT}`;
    ctx.fillStyle = this.colour.ink;
    // Low rows cannot all be named: as many as can be read.
    let free = AXIS_PX - 1;
    this.eachRow(view, (row, y, height) => {
      const middle = y + Math.min(height, view.lane + view.gap) / 2;
      if (middle - 7 < free) return;
      ctx.fillText(this.cut(ctx, this.plan.nodes[row], view.left - 18), 10, middle + 1);
      free = middle + 7;
    });
    ctx.fillStyle = this.colour.strong;
    ctx.fillRect(view.left - 1, 0, 1, view.height);
  }

  present(ctx, view) {
    if (this.plan.now === null) return;
    const x = Math.round(view.x(this.plan.now));
    if (x < view.left || x > view.width) return;
    ctx.fillStyle = this.colour.now;
    ctx.fillRect(x, AXIS_PX - 6, 1.5, view.height - AXIS_PX + 6);
    ctx.beginPath();
    ctx.moveTo(x - 5, AXIS_PX - 9);
    ctx.lineTo(x + 6.5, AXIS_PX - 9);
    ctx.lineTo(x + 0.75, AXIS_PX - 1);
    ctx.fill();
  }

  // How much of the site is in use, from first to last, and which part of that is in view.
  overview(ctx, view, width, height) {
    const { plan, colour } = this, [first, last] = view.bounds;
    const x = (t) => ((t - first) / (last - first)) * width;
    const floor = height - 1, room = height - 6;
    ctx.clearRect(0, 0, width, height);
    ctx.fillStyle = colour.band;
    ctx.fillRect(0, 0, width, height);
    ctx.beginPath();
    ctx.moveTo(x(plan.start), floor);
    plan.use.forEach((share, i) => {
      const cell = (plan.end - plan.start) / plan.use.length;
      for (const edge of [i, i + 1]) ctx.lineTo(x(plan.start + edge * cell), floor - share * room);
    });
    ctx.lineTo(x(plan.end), floor);
    ctx.fillStyle = colour.strong;
    ctx.fill();
    ctx.fillStyle = colour.line;
    ctx.fillRect(0, floor, width, 1);
    const from = x(view.start), to = x(view.end);
    ctx.fillStyle = colour.shade;
    ctx.fillRect(from, 0, to - from, height);
    ctx.fillStyle = colour.accent;
    for (const edge of [from, to - 2]) ctx.fillRect(edge, 0, 2, height);
    if (plan.now !== null) {
      ctx.fillStyle = colour.now;
      ctx.fillRect(x(plan.now), 0, 1.5, height);
    }
  }

  // A sample of a step, for the legend.
  swatch(ctx, step, width, height) {
    const [fill, accent] = this.palette[8], thin = 4;
    const low = ["stage", "saved", "migrate"].includes(step);
    this.bar(ctx, step, fill, accent, 0, low ? height - thin - 3 : 0, width, low ? thin : height, thin, false);
  }
}

// Where a bar is on the canvas, cut to the plot.
function boxOf(view, bar) {
  const [y, height] = view.band(view.plan.tracks[view.plan.trackOf[bar]]);
  const x = Math.max(view.x(view.plan.begin[bar]), view.left), end = Math.min(view.x(view.plan.finish[bar]), view.width);
  return { x, y, width: Math.max(1, end - x), height };
}
