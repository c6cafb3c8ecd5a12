"use strict";
// What part of the plan is seen, and where on the canvas: seconds to pixels across, rows to pixels down.

const AXIS_PX = 44, SPAN_MIN_S = 10, FIT_LANE_MIN_PX = 2, MARGIN = 0.02;

class View {
  constructor(plan) {
    this.plan = plan;
    this.width = this.height = 100;
    this.left = 80; // the names' width
    this.run = plan.steps.indexOf("run");
    this.top = 0; // how far the rows are scrolled
    this.lanePx = 34;
    this.layRows();
    this.fit();
  }

  // ---- across

  get plotWidth() {
    return Math.max(1, this.width - this.left);
  }

  x(t) {
    return this.left + ((t - this.start) / (this.end - this.start)) * this.plotWidth;
  }

  timeAt(x) {
    return this.start + ((x - this.left) / this.plotWidth) * (this.end - this.start);
  }

  get bounds() {
    const margin = (this.plan.end - this.plan.start) * MARGIN;
    return [this.plan.start - margin, this.plan.end + margin];
  }

  show(start, end) {
    const [first, last] = this.bounds;
    const span = Math.min(Math.max(end - start, Math.min(SPAN_MIN_S, last - first)), last - first);
    const middle = (start + end) / 2;
    this.start = Math.min(Math.max(middle - span / 2, first), last - span);
    this.end = this.start + span;
  }

  fit() {
    this.show(...this.bounds);
  }

  // Larger factors show less; the moment `at` stays where it is.
  zoom(factor, at = (this.start + this.end) / 2) {
    const [first, last] = this.bounds;
    const span = Math.min(Math.max((this.end - this.start) / factor, SPAN_MIN_S), last - first);
    const share = (at - this.start) / (this.end - this.start);
    this.show(at - share * span, at + (1 - share) * span);
  }

  pan(seconds) {
    this.show(this.start + seconds, this.end + seconds);
  }

  // ---- down

  // lanePx: the height of a lane, or "fit" for all rows in view.
  setRows(lanePx) {
    this.lanePx = lanePx;
    this.layRows();
  }

  get lane() {
    if (this.lanePx !== "fit") return this.lanePx;
    const lanes = this.plan.lanes.reduce((sum, lanes) => sum + lanes, 0) || 1;
    return Math.max(FIT_LANE_MIN_PX, Math.min(22, ((this.height - AXIS_PX) / lanes) * 0.9));
  }

  layRows() {
    const lane = this.lane;
    this.gap = lane >= 30 ? 12 : lane >= 12 ? 6 : lane >= 7 ? 2 : lane >= 4 ? 1 : 0;
    this.tops = new Float64Array(this.plan.lanes.length + 1);
    this.plan.lanes.forEach((lanes, row) => { this.tops[row + 1] = this.tops[row] + lanes * lane + this.gap; });
  }

  get rowsHeight() {
    return this.tops[this.tops.length - 1];
  }

  rowTop(row) {
    return AXIS_PX + this.tops[row] - this.top;
  }

  rowHeight(row) {
    return this.tops[row + 1] - this.tops[row];
  }

  // The row at a height of the canvas; -1 above the first, the number of rows below the last.
  rowAt(y) {
    const down = y - AXIS_PX + this.top;
    if (y < AXIS_PX || down < 0) return -1;
    let low = 0, high = this.plan.nodes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] > down) high = middle; else low = middle + 1;
    }
    return low;
  }

  // Where the bars of a track lie: [y, height].
  band(track) {
    const top = this.rowTop(track.node), lane = this.lane;
    if (track.form === WHOLE_ROW) return [top, this.rowHeight(track.node)];
    const y = top + this.gap / 2 + track.lane * lane, space = lane >= 7 ? 2 : 0;
    const height = lane - space, thin = this.thin;
    return track.form === THIN ? [y + height - thin, thin] : [y, height];
  }

  get thin() {
    return Math.max(1, Math.min(6, this.lane * 0.22));
  }

  // visit(bar, x0, x1, y, height) of every bar in view, cut to the plot; of a lane's that share a pixel the first, and
  // none of a step that would be seen far longer than it is.
  eachBar(visit, finest = 0.75) {
    const last = Math.min(this.rowAt(this.height - 1), this.plan.nodes.length - 1);
    for (let row = Math.max(0, this.rowAt(AXIS_PX)); row <= last; row++) {
      for (const track of this.plan.tracksOf[row]) this.eachOf(track, visit, finest);
    }
  }

  eachOf(track, visit, finest) {
    const { plan, left, width } = this, [y, height] = this.band(track);
    let drawn = -Infinity;
    for (let i = plan.firstAfter(track, this.start); i < track.to && plan.begin[i] < this.end; i++) {
      if (plan.finish[i] <= this.start) continue;
      const x0 = Math.max(this.x(plan.begin[i]), left), x1 = Math.min(this.x(plan.finish[i]), width);
      if (track.form === MACHINE && (x1 - drawn < finest || (x1 - x0 < finest / 2 && plan.step[i] !== this.run))) continue;
      drawn = x1;
      visit(i, x0, Math.max(x1, x0 + 1), y, height);
    }
  }

  // The bar under a point, or -1; thin lines are caught by what is near them.
  barAt(x, y) {
    const row = this.rowAt(y);
    if (row < 0 || row >= this.plan.nodes.length || x < this.left) return -1;
    const near = (2 * (this.end - this.start)) / this.plotWidth;
    for (const track of [...this.plan.tracksOf[row]].reverse()) {
      const [top, height] = this.band(track), slack = track.form === THIN ? 2 : 0;
      if (y < top - slack || y >= top + height + slack) continue;
      const t = this.timeAt(x);
      for (const moment of [t, t - near, t + near]) {
        const found = this.plan.at(track, moment);
        if (found.length) return found.at(-1);
      }
    }
    return -1;
  }
}
