"use strict";
// Moments as people read them, and the marks of the time axis: on the reader's clock, or in days of a simulation.

const DAY_S = 86400, WEEK_S = 7 * DAY_S, MONDAY_S = 4 * DAY_S;
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");

class Clock {
  constructor(virtual, steps_s) {
    this.virtual = virtual;
    this.steps_s = steps_s;
  }

  // Seconds east of UTC at t, by the reader's clock.
  offset(t) {
    return this.virtual ? 0 : -60 * new Date(t * 1000).getTimezoneOffset();
  }

  zone(t) {
    if (this.virtual) return "simulated time";
    const minutes = this.offset(t) / 60, size = Math.abs(minutes);
    if (!size) return "UTC";
    return `UTC${minutes < 0 ? "-" : "+"}${Math.floor(size / 60)}${size % 60 ? ":" + two(size % 60) : ""}`;
  }

  time(t, seconds) {
    const s = ((Math.floor(t) + this.offset(t)) % DAY_S + DAY_S) % DAY_S;
    const text = `${two(Math.floor(s / 3600))}:${two(Math.floor(s / 60) % 60)}`;
    return seconds ? `${text}:${two(s % 60)}` : text;
  }

  day(t) {
    if (this.virtual) return `day ${Math.floor(t / DAY_S)}`;
    const date = new Date(t * 1000);
    return `${DAYS[date.getDay()]} ${date.getDate()} ${MONTHS[date.getMonth()]}`;
  }

  moment(t) {
    if (this.virtual) return `day ${Math.floor(t / DAY_S)}, ${this.time(t, true)}`;
    const date = new Date(t * 1000);
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${this.time(t, true)}`;
  }

  // From when to when, the day named once if it is the same.
  span(start, end) {
    const [first, last] = [this.moment(start), this.moment(end)], day = first.slice(0, -8);
    return `${first} to ${last.startsWith(day) ? last.slice(-8) : last}`;
  }

  duration(seconds) {
    const parts = [];
    let left = Math.round(seconds);
    for (const [unit, size] of [["d", DAY_S], ["h", 3600], ["m", 60], ["s", 1]]) {
      const number = Math.floor(left / size);
      left -= number * size;
      if (number) parts.push(`${number}${unit}`);
    }
    return parts.slice(0, 2).join("") || "0s";
  }

  // [{at, label, midnight}] from start to end, at most `most` of them.
  ticks(start, end, most) {
    const wanted = (end - start) / most;
    const step = this.steps_s.find((s) => s >= wanted) ?? this.steps_s.at(-1) * Math.ceil(wanted / this.steps_s.at(-1));
    const shift = this.offset(start) - (!this.virtual && step % WEEK_S === 0 ? MONDAY_S : 0);
    const found = [];
    for (let at = Math.ceil((start + shift) / step) * step - shift; at < end; at += step) {
      const midnight = (at + this.offset(at)) % DAY_S === 0;
      found.push({ at, midnight, label: midnight ? this.day(at) : this.time(at, step < 60) });
    }
    return found;
  }
}
