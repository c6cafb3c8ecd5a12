"use strict";
// What the page was given, as flat arrays of numbers.
//
// A track is what lies on one lane of one node: its bars are by start, and `reach[i]` is the latest end of its first
// bars up to i. So the first bar that is still there at a moment is found by bisection, however they overlap.

const MACHINE = 0, THIN = 1, WHOLE_ROW = 2;

class Plan {
  constructor(given) {
    Object.assign(this, given);
    this.begin = Float64Array.from(given.begin, (s) => given.start + s);
    this.finish = Float64Array.from(given.length, (s, i) => this.begin[i] + s);
    this.step = Uint8Array.from(given.step);
    this.lease = Int32Array.from(given.lease);
    this.detail = Int32Array.from(given.detail);
    this.isHard = given.leases.map(([, , kind]) => given.hard.includes(kind));
    this.reach = new Float64Array(this.begin.length);
    this.tracksOf = given.nodes.map(() => []);
    this.trackOf = new Int32Array(this.begin.length);
    this.layTracks(given.tracks);
  }

  layTracks(tracks) {
    let from = 0;
    this.tracks = tracks.map(([node, lane, form, bars], index) => {
      let reach = -Infinity;
      for (let i = from; i < from + bars; i++) {
        reach = Math.max(reach, this.finish[i]);
        this.reach[i] = reach;
        this.trackOf[i] = index;
      }
      from += bars;
      const track = { node, lane, form, from: from - bars, to: from };
      this.tracksOf[node].push(track);
      return track;
    });
    // Drawn in this order: maintenance behind, thin lines before.
    const order = [1, 2, 0];
    for (const here of this.tracksOf) here.sort((a, b) => order[a.form] - order[b.form] || a.lane - b.lane);
  }

  // The first bar of a track that ends after t.
  firstAfter(track, t) {
    let low = track.from, high = track.to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.reach[middle] > t) high = middle; else low = middle + 1;
    }
    return low;
  }

  // The bars of a track that are there at t.
  at(track, t) {
    const found = [];
    for (let i = this.firstAfter(track, t); i < track.to && this.begin[i] <= t; i++) {
      if (this.finish[i] > t) found.push(i);
    }
    return found;
  }

  isPlanned(bar) {
    return this.now !== null && this.begin[bar] > this.now;
  }

  nodeOf(bar) {
    return this.tracks[this.trackOf[bar]].node;
  }

  // A bar as people read it.
  told(bar) {
    const [lease, label, kind, owner] = this.leases[this.lease[bar]];
    const [workspace, state, cpus, memory_mib] = this.details[this.detail[bar]];
    return {
      node: this.nodes[this.nodeOf(bar)], lane: this.tracks[this.trackOf[bar]].lane, step: this.steps[this.step[bar]],
      lease, label, kind, owner, workspace, state, cpus, memory_mib,
      start: this.begin[bar], end: this.finish[bar], planned: this.isPlanned(bar),
    };
  }

  // The bars of a lease, by start.
  barsOf(lease) {
    const found = [];
    for (let i = 0; i < this.lease.length; i++) if (this.lease[i] === lease) found.push(i);
    return found.sort((a, b) => this.begin[a] - this.begin[b]);
  }
}
