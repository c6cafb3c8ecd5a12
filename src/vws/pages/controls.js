"use strict";
// The hands on the calendar: pointer, wheel, keys, buttons, what is said of a bar, and the table of leases.

const byId = (id) => document.getElementById(id);
const MEMORY_GIB = 1024, TABLE_MAX = 2000, CLICK_PX = 4, ZOOM_STEP = 1.5;

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

class Controls {
  constructor(plan) {
    this.plan = plan;
    this.clock = new Clock(plan.virtual, plan.ticks_s);
    this.view = new View(plan);
    this.paint = new Paint(plan, this.clock);
    this.canvas = byId("plan");
    this.box = byId("rows-box");
    this.ctx = this.canvas.getContext("2d");
    this.over = byId("overview").getContext("2d");
    this.frames = 0;
    this.drawMs = 0;
    this.fill();
    this.listen();
    this.resize();
  }

  fill() {
    const { plan, clock } = this;
    const leases = plan.leases.filter(([, , kind]) => kind !== "maintenance").length;
    const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
    byId("summary").textContent = `${many(plan.nodes.length, "node")} · ${many(leases, "lease")} · `
      + `${clock.span(plan.start, plan.end)} · ${clock.zone(plan.start)}`;
    byId("now").hidden = plan.now === null;
    this.view.height = this.box.clientHeight;
    const lanePx = [34, 22].find((px) => { this.view.setRows(px); return this.view.rowsHeight < this.view.height - AXIS_PX; });
    byId("rows").value = lanePx ?? 15;
    this.view.setRows(lanePx ?? 15);
    byId("table").addEventListener("toggle", () => this.fillTable(), { once: true });
    this.legend();
  }

  legend() {
    const present = new Set(this.plan.step), items = [];
    const item = (name, draw) => {
      const sample = element("canvas");
      [sample.width, sample.height] = [56, 32];
      sample.style.width = "28px";
      sample.style.height = "16px";
      sample.setAttribute("aria-hidden", "true");
      const ctx = sample.getContext("2d");
      ctx.scale(2, 2);
      draw(ctx);
      items.push(element("li", "", sample, element("span", name)));
    };
    this.plan.steps.forEach((step, i) => {
      if (present.has(i)) item(this.plan.step_names[i], (ctx) => this.paint.swatch(ctx, step, 28, 16));
    });
    if (this.plan.isHard.some(Boolean)) {
      item("fixed: never moved", (ctx) => this.paint.bar(ctx, "run", ...this.paint.palette[8], 0, 0, 28, 16, 4, true));
    }
    if (this.plan.now !== null) {
      item("now; faint: planned", (ctx) => { ctx.fillStyle = this.paint.colour.now; ctx.fillRect(13, 0, 2, 16); });
    }
    if (this.paint.byKind) this.kindItems(item);
    byId("legend").replaceChildren(...items);
  }

  kindItems(item) {
    const present = new Set(this.plan.leases.map(([, , kind]) => kind));
    for (const kind of this.plan.kinds) {
      const pair = this.paint.palette[this.plan.colour_of_kind[kind]];
      if (present.has(kind) && kind !== "maintenance") {
        item(kind, (ctx) => this.paint.bar(ctx, "run", ...pair, 0, 0, 28, 16, 4, this.plan.hard.includes(kind)));
      }
    }
  }

  // ---------------------------------------------------------------- drawing

  // Draw soon, once however much has changed.
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.drawNow(); });
  }

  drawNow() {
    const started = performance.now();
    this.view.top = this.box.scrollTop;
    this.paint.draw(this.ctx, this.view);
    const overview = byId("overview");
    this.paint.overview(this.over, this.view, overview.clientWidth, overview.clientHeight);
    this.frames += 1;
    this.drawMs = performance.now() - started;
  }

  resize() {
    const { view, canvas, box } = this, scale = devicePixelRatio || 1;
    view.width = box.clientWidth;
    view.height = box.clientHeight;
    this.ctx.font = `12px ${FONT}`;
    const widest = this.plan.nodes.reduce((a, b) => (b.length > a.length ? b : a), "");
    view.left = Math.ceil(Math.min(180, view.width * 0.3, Math.max(56, this.paint.measure(this.ctx, widest) + 22)));
    for (const [each, ctx, width, height] of [
      [canvas, this.ctx, view.width, view.height],
      [byId("overview"), this.over, byId("overview").clientWidth, byId("overview").clientHeight],
    ]) {
      each.width = Math.round(width * scale);
      each.height = Math.round(height * scale);
      ctx.setTransform(scale, 0, 0, scale, 0, 0);
    }
    canvas.style.width = `${view.width}px`;
    canvas.style.height = `${view.height}px`;
    this.layRows();
  }

  layRows() {
    this.view.layRows();
    byId("spacer").style.height = `${Math.max(0, this.view.rowsHeight + AXIS_PX - this.view.height)}px`;
    this.drawNow();
  }

  restyle() {
    this.paint.readTheme();
    this.legend();
    this.drawNow();
  }

  // ---------------------------------------------------------------- pointer and keys

  listen() {
    const { canvas } = this;
    new ResizeObserver(() => this.resize()).observe(this.box);
    this.box.addEventListener("scroll", () => { this.hideTip(); this.redraw(); });
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => this.endDrag());
    canvas.addEventListener("pointerleave", () => this.hideTip());
    canvas.addEventListener("keydown", (event) => this.key(event));
    const overview = byId("overview");
    overview.addEventListener("pointerdown", (event) => this.brush(event));
    byId("zoom-in").onclick = () => this.zoom(ZOOM_STEP);
    byId("zoom-out").onclick = () => this.zoom(1 / ZOOM_STEP);
    byId("fit").onclick = () => this.show(...this.view.bounds);
    byId("now").onclick = () => this.toNow();
    byId("find").oninput = (event) => this.find(event.target.value);
    byId("colour").onchange = (event) => { this.paint.byKind = event.target.value === "kind"; this.restyle(); };
    byId("rows").onchange = ({ target }) => {
      this.view.setRows(target.value === "fit" ? "fit" : Number(target.value));
      this.layRows();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
    matchMedia("print").addEventListener("change", () => this.restyle());
    addEventListener("beforeprint", () => this.restyle());
    addEventListener("afterprint", () => this.restyle());
  }

  zoom(factor, at) {
    this.view.zoom(factor, at);
    this.hideTip();
    this.redraw();
  }

  show(start, end) {
    this.view.show(start, end);
    this.hideTip();
    this.redraw();
  }

  toNow() {
    if (this.plan.now === null) return;
    const half = (this.view.end - this.view.start) / 2;
    this.show(this.plan.now - half, this.plan.now + half);
  }

  // Over the names the wheel scrolls rows, as it does everywhere; over the bars it zooms, sideways it moves.
  wheel(event) {
    const x = event.offsetX, { view } = this;
    if (x < view.left && !event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 16 : 1, perPixel = (view.end - view.start) / view.plotWidth;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      view.pan(sideways * pixels * perPixel);
      this.hideTip();
      this.redraw();
    } else if (event.deltaY) {
      this.zoom(Math.exp(-event.deltaY * pixels * 0.0022), view.timeAt(Math.max(x, view.left)));
    }
  }

  press(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, lastX: event.offsetX, lastY: event.offsetY, span: event.shiftKey };
  }

  move(event) {
    const { drag, view } = this, x = event.offsetX, y = event.offsetY;
    if (!drag) return this.point(x, y, event.clientX, event.clientY);
    if (!drag.far && Math.hypot(x - drag.x, y - drag.y) < CLICK_PX) return undefined;
    drag.far = true;
    this.hideTip();
    if (drag.span) return this.drawSpan(drag.x, x);
    this.canvas.classList.add("dragging");
    view.pan(((drag.lastX - x) / view.plotWidth) * (view.end - view.start));
    this.box.scrollTop += drag.lastY - y;
    [drag.lastX, drag.lastY] = [x, y];
    return this.redraw();
  }

  drawSpan(from, to) {
    this.drawNow();
    this.ctx.fillStyle = this.paint.colour.shade;
    this.ctx.fillRect(Math.min(from, to), AXIS_PX, Math.abs(to - from), this.view.height);
  }

  release(event) {
    const { drag, view } = this;
    this.endDrag();
    if (!drag) return;
    if (drag.far && drag.span) {
      const times = [view.timeAt(drag.x), view.timeAt(event.offsetX)].sort((a, b) => a - b);
      this.show(...times);
    } else if (!drag.far) {
      this.pick(view.barAt(event.offsetX, event.offsetY));
    }
  }

  endDrag() {
    this.drag = null;
    this.canvas.classList.remove("dragging");
  }

  // On the strip above: a drag chooses a span, a click moves what is in view.
  brush(event) {
    const strip = event.target, [first, last] = this.view.bounds;
    const time = (e) => first + ((e.clientX - strip.getBoundingClientRect().left) / strip.clientWidth) * (last - first);
    const from = time(event), half = (this.view.end - this.view.start) / 2;
    strip.setPointerCapture(event.pointerId);
    this.show(from - half, from + half);
    strip.onpointermove = (e) => {
      const to = time(e);
      if (Math.abs(to - from) > (last - first) * 0.004) this.show(Math.min(from, to), Math.max(from, to));
    };
    strip.onpointerup = strip.onpointercancel = () => { strip.onpointermove = null; };
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { view, box } = this, span = view.end - view.start;
    const shifted = { ArrowUp: () => this.step(0, -1), ArrowDown: () => this.step(0, 1) };
    const plain = {
      ArrowLeft: () => this.show(view.start - span / 8, view.end - span / 8),
      ArrowRight: () => this.show(view.start + span / 8, view.end + span / 8),
      ArrowUp: () => { box.scrollTop -= 44; },
      ArrowDown: () => { box.scrollTop += 44; },
      PageUp: () => { box.scrollTop -= box.clientHeight * 0.8; },
      PageDown: () => { box.scrollTop += box.clientHeight * 0.8; },
      Home: () => this.show(view.bounds[0], view.bounds[0] + span),
      End: () => this.show(view.bounds[1] - span, view.bounds[1]),
      "+": () => this.zoom(ZOOM_STEP), "=": () => this.zoom(ZOOM_STEP), "-": () => this.zoom(1 / ZOOM_STEP),
      0: () => this.show(...view.bounds), n: () => this.toNow(),
      ".": () => this.step(1, 0), ",": () => this.step(-1, 0),
      Enter: () => this.pick(this.paint.current), Escape: () => this.letGo(),
    };
    const act = (event.shiftKey && shifted[event.key]) || plain[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // ---------------------------------------------------------------- one bar

  // From the bar the keyboard is on to the next of its row, or to a neighbouring row's at the same time.
  step(along, down) {
    const { plan, view, paint } = this;
    const here = paint.current, middle = (view.start + view.end) / 2;
    let row = here < 0 ? Math.max(0, view.rowAt(AXIS_PX)) : plan.nodeOf(here) + down;
    const time = here < 0 ? middle : plan.begin[here];
    let bars = this.barsOfRow(row);
    while (!bars.length && down && plan.nodes[row]) bars = this.barsOfRow((row += down));
    if (!bars.length) return;
    const at = here < 0 || down ? nearest(bars, (i) => Math.abs(plan.begin[i] - time)) : bars.indexOf(here) + along;
    if (bars[at] !== undefined) this.goTo(bars[at]);
  }

  barsOfRow(row) {
    const { plan } = this, found = [];
    for (const track of plan.tracksOf[row] ?? []) for (let i = track.from; i < track.to; i++) found.push(i);
    return found.sort((a, b) => plan.begin[a] - plan.begin[b] || a - b);
  }

  goTo(bar) {
    const { plan, view, box } = this, row = plan.nodeOf(bar), span = view.end - view.start;
    this.paint.current = bar;
    const outside = plan.begin[bar] < view.start || plan.begin[bar] > view.end - span / 20;
    if (outside) view.show(plan.begin[bar] - span / 3, plan.begin[bar] + (span * 2) / 3);
    if (view.rowTop(row) < AXIS_PX) box.scrollTop = view.tops[row];
    const below = view.rowTop(row) + view.rowHeight(row) - view.height;
    if (below > 0) box.scrollTop += below;
    this.drawNow();
    const place = boxOf(view, bar), canvas = this.canvas.getBoundingClientRect();
    this.showTip(bar, canvas.left + place.x + Math.min(place.width, 40), canvas.top + place.y + place.height);
    this.say(this.facts(bar).map(([name, text]) => (name ? `${name} ${text}` : text)).join(", "));
  }

  point(x, y, clientX, clientY) {
    const bar = this.view.barAt(x, y);
    if (bar < 0) this.hideTip(); else this.showTip(bar, clientX, clientY);
  }

  facts(bar) {
    const { clock } = this, told = this.plan.told(bar);
    const when = `${clock.span(told.start, told.end)} (${clock.duration(told.end - told.start)})`;
    const step = this.plan.step_names[this.plan.steps.indexOf(told.step)] + (told.planned ? ", planned" : "");
    const gib = told.memory_mib >= MEMORY_GIB;
    const memory = `${gib ? +(told.memory_mib / MEMORY_GIB).toFixed(1) : told.memory_mib} ${gib ? "GiB" : "MiB"}`;
    const size = told.cpus ? `${told.cpus} CPU${told.cpus === 1 ? "" : "s"}, ${memory}` : "";
    return [
      ["", told.label || told.lease], ["kind", told.kind], ["step", step], ["time", when], ["node", told.node],
      ["state", told.state], ["owner", told.owner], ["size", size], ["workspace", told.workspace], ["lease", told.lease],
    ].filter(([, text]) => text);
  }

  showTip(bar, clientX, clientY) {
    const tip = byId("tip"), [[, title], ...facts] = this.facts(bar), list = element("dl");
    for (const [name, text] of facts) list.append(element("dt", name), element("dd", text));
    tip.replaceChildren(element("strong", title), list);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const under = clientY + 18 + height < innerHeight;
    tip.style.left = `${Math.max(6, Math.min(clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${Math.max(6, under ? clientY + 18 : clientY - height - 12)}px`;
  }

  hideTip() {
    byId("tip").hidden = true;
  }

  say(text) {
    byId("said").textContent = text;
  }

  // ---------------------------------------------------------------- leases

  // Show the lease of a bar before all others; a pick of nothing, or of the same again, lets go.
  pick(bar) {
    const lease = bar < 0 ? -1 : this.plan.lease[bar], { picked } = this.paint;
    if (lease < 0 || (picked !== null && picked.size === 1 && picked.has(lease))) return this.letGo();
    this.paint.picked = new Set([lease]);
    this.say(this.story(lease));
    return this.redraw();
  }

  letGo() {
    this.paint.picked = null;
    this.paint.current = -1;
    this.hideTip();
    this.say("");
    this.redraw();
  }

  story(lease) {
    const { plan, clock } = this, bars = plan.barsOf(lease), [id, label, kind, owner] = plan.leases[lease];
    const nodes = new Set(bars.map((bar) => plan.nodeOf(bar))).size;
    const end = bars.reduce((latest, bar) => Math.max(latest, plan.finish[bar]), -Infinity);
    const times = clock.span(plan.begin[bars[0]], end);
    const on = nodes === 1 ? `on ${plan.nodes[plan.nodeOf(bars[0])]}` : `on ${nodes} nodes`;
    return [label || id, kind, owner, on, times].filter(Boolean).join(" · ");
  }

  find(text) {
    const wanted = text.trim().toLowerCase(), { plan } = this;
    if (!wanted) return this.letGo();
    const matches = plan.leases.flatMap((lease, i) => (lease.slice(0, 4).some((t) => t.toLowerCase().includes(wanted)) ? [i] : []));
    const node = plan.nodes.findIndex((name) => name.toLowerCase().includes(wanted));
    this.paint.picked = matches.length ? new Set(matches) : null;
    if (matches.length) this.say(matches.length === 1 ? this.story(matches[0]) : `${matches.length} leases`);
    else this.say(node < 0 ? `nothing is called ${text.trim()}` : `node ${plan.nodes[node]}`);
    if (!matches.length && node >= 0) this.box.scrollTop = this.view.tops[node];
    return this.redraw();
  }

  showLease(lease) {
    const bars = this.plan.barsOf(lease);
    const start = this.plan.begin[bars[0]], end = bars.reduce((latest, bar) => Math.max(latest, this.plan.finish[bar]), start);
    this.view.show(start - (end - start) * 0.2, end + (end - start) * 0.2);
    this.paint.picked = null;
    this.pick(bars[0]);
    this.box.scrollTop = this.view.tops[this.plan.nodeOf(bars[0])];
    this.canvas.focus();
  }

  fillTable() {
    const { plan, clock } = this, first = plan.leases.map(() => Infinity), last = plan.leases.map(() => -Infinity);
    const nodes = plan.leases.map(() => new Set());
    plan.lease.forEach((lease, bar) => {
      first[lease] = Math.min(first[lease], plan.begin[bar]);
      last[lease] = Math.max(last[lease], plan.finish[bar]);
      nodes[lease].add(plan.nodeOf(bar));
    });
    const table = element("table"), body = table.createTBody(), head = table.createTHead().insertRow();
    for (const name of ["lease", "kind", "owner", "nodes", "from", "to", "id"]) {
      const cell = element("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    const order = plan.leases.map((_, i) => i).sort((a, b) => first[a] - first[b] || a - b);
    for (const i of order.slice(0, TABLE_MAX)) {
      const [id, label, kind, owner] = plan.leases[i], button = element("button", label || id);
      button.onclick = () => this.showLease(i);
      const told = [kind, owner, String(nodes[i].size), clock.moment(first[i]), clock.moment(last[i]), id];
      body.append(element("tr", "", element("td", "", button), ...told.map((text) => element("td", text))));
    }
    byId("table").querySelector("div").replaceChildren(table);
    if (order.length > TABLE_MAX) byId("table").querySelector("div").append(`and ${order.length - TABLE_MAX} more`);
  }
}

function nearest(items, distance) {
  return items.reduce((best, item, i) => (distance(item) < distance(items[best]) ? i : best), 0);
}

// For scripts and tests: what is in view, and the view itself.
window.calendar = (() => {
  const controls = new Controls(new Plan(JSON.parse(byId("data").textContent))), { plan, view } = controls;
  return {
    visible() {
      const found = [];
      view.eachBar((bar, x0, x1, y, height) => found.push({ ...plan.told(bar), x: x0, y, width: x1 - x0, height }), -Infinity);
      return found;
    },
    view: () => ({ start: view.start, end: view.end, top: view.top, left: view.left, width: view.width, height: view.height }),
    ticks: () => controls.clock.ticks(view.start, view.end, Math.max(2, Math.floor(view.plotWidth / TICK_PX))),
    at(x, y) {
      const bar = view.barAt(x, y);
      return bar < 0 ? null : plan.told(bar);
    },
    show(start, end) { view.show(start, end); controls.drawNow(); },
    draw() { controls.drawNow(); return controls.drawMs; },
    frames: () => controls.frames,
  };
})();
