// Curves of errors, latency and requests. Missing time stays a gap; nothing is drawn on as if it were known.

import { ask } from "./link.js";
import { fill, h, s } from "./dom.js";
import { clockTime, milliseconds, perSecond, percent, rate, routerNow } from "./words.js";

const SPAN_S = 900;
const SPANS_S = [180, 300, 600, SPAN_S];
const HEIGHT = 150;
const LEFT = 50;
const RIGHT = 8;
const TOP = 14;
const BOTTOM = 18;
const MOST_SETS = 6;
/** So much time between two points was not seen: the router was away. */
const GAP_S = 1;

/** The points known to this page; it asks for those it lacks only, and starts again with a restarted router. */
export class Store {
  constructor() {
    this.points = [];
    this.boot = "";
    this.serial = 0;
    this.stepS = 5;
    this.clocks = null;
  }

  async refresh() {
    let answer = await this.fetch();
    const clocks = [answer.now, performance.now() / 1000];
    if (this.clocks && Math.abs(clocks[0] - this.clocks[0] - (clocks[1] - this.clocks[1])) > 2) {
      // A clock was set, or this machine slept: date all points again.
      Object.assign(this, { points: [], boot: "", serial: 0 });
      answer = await this.fetch();
    }
    this.clocks = clocks;
    return this.take(answer);
  }

  fetch() {
    return ask(`/curves?boot=${encodeURIComponent(this.boot)}&after=${this.serial}`);
  }

  take(answer) {
    // What another process counted before stays: it was true. Its numbering does not.
    this.boot = answer.boot;
    this.serial = answer.serial;
    this.stepS = answer.step_s;
    const known = this.points.length ? this.points[this.points.length - 1].at : 0;
    for (const point of answer.points) {
      const at = answer.now - point.age_s;
      if (at > known + 0.5) this.points.push({ at, spanS: point.span_s, sets: point.sets, cohorts: point.cohorts });
    }
    this.points = this.points.filter((point) => point.at > answer.now - SPAN_S - 2 * this.stepS);
    return answer.now;
  }

  get hasCohorts() {
    return this.points.some((point) => Object.keys(point.cohorts).length);
  }
}

const KINDS = [
  { id: "errors", title: "Errors", unit: "share of requests", least: 0.01, show: rate, axis: (value) => percent(value * 100), lines: [{ of: ([requests, errors]) => (requests ? errors / requests : null) }] },
  { id: "latency", title: "Latency", unit: "95th percentile; thin: median", least: 2, show: milliseconds, axis: (value) => (value >= 1000 ? `${value / 1000} s` : `${value} ms`), lines: [{ of: (sample) => sample[3] }, { of: (sample) => sample[2], thin: true }] },
  { id: "requests", title: "Requests", unit: "per second", least: 1, show: perSecond, axis: (value) => `${value}/s`, lines: [{ of: (sample, point) => sample[0] / point.spanS }] },
];

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Charts {
  constructor(place, note) {
    this.place = place;
    this.note = note;
    this.cursor = null;
    this.drawn = null;
    place.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.drawn && this.draw(...this.drawn)).observe(place);
  }

  /** `series`: [[name, colour, point => sample or undefined], …]; `marks`: [[time, text], …]. */
  draw(store, series, marks) {
    this.drawn = [store, series, marks];
    const now = routerNow();
    const first = store.points.find((point) => series.some(([, , sampleOf]) => sampleOf(point)?.[0]));
    this.spanS = SPANS_S.find((span) => !first || first.at > now - span) ?? SPAN_S;
    if (!this.place.firstChild) this.place.append(...KINDS.map((kind) => this.frame(kind)));
    for (const [index, kind] of KINDS.entries()) this.paint(this.place.children[index], kind, store, series, marks, now);
  }

  frame(kind) {
    const svg = s("svg", { role: "img", tabindex: 0, height: HEIGHT, class: "chart" });
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const part = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
      this.point(part < 0 || part > 1 ? null : routerNow() - this.spanS * (1 - part));
    });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.point(null);
      if (!step) return;
      event.preventDefault();
      this.point(Math.min(routerNow(), (this.cursor ?? routerNow()) + step * this.drawn[0].stepS));
    });
    svg.addEventListener("blur", () => this.point(null));
    return h("figure", { "data-chart": kind.id }, h("figcaption", {}, h("b", {}, kind.title), " ", h("span", { class: "quiet" }, kind.unit)), svg, h("p", { class: "readout" }));
  }

  point(at) {
    if (this.cursor === at) return;
    this.cursor = at;
    if (this.drawn) this.draw(...this.drawn);
  }

  paint(figure, kind, store, series, marks, now) {
    const svg = figure.querySelector("svg");
    const width = Math.max(200, Math.floor(figure.clientWidth));
    const { points, stepS } = store;
    const values = [];
    for (const line of kind.lines) {
      for (const [, , sampleOf] of series) {
        for (const point of points) {
          const sample = sampleOf(point);
          const value = sample && line.of(sample, point);
          if (value !== null && value !== undefined) values.push(value);
        }
      }
    }
    const { spanS } = this;
    const top = nice(Math.max(kind.least, ...values));
    const x = (at) => LEFT + (1 - (now - at) / spanS) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      parts.push(s("line", { x1: LEFT, x2: width - RIGHT, y1: y(top * share), y2: y(top * share), class: "grid" }));
      parts.push(s("text", { x: LEFT - 5, y: y(top * share) + 4, "text-anchor": "end" }, share ? kind.axis(top * share) : "0"));
    }
    const whole = spanS / 60;
    for (const minutes of [whole, (whole / 3) * 2, whole / 3, 0].map((each) => Math.round(each))) {
      const anchor = minutes === whole ? "start" : minutes ? "middle" : "end";
      parts.push(s("text", { x: x(now - minutes * 60), y: HEIGHT - 4, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
    }
    // The newest first: where two are too close, it is the one that holds now.
    let free = width;
    for (const [at, text] of [...marks].reverse()) {
      if (at < now - spanS || at > now) continue;
      parts.push(s("line", { x1: x(at), x2: x(at), y1: TOP, y2: HEIGHT - BOTTOM, class: "mark" }));
      const late = x(at) > width - 40;
      const [from, to] = late ? [x(at) - 3 - LABEL, x(at) - 3] : [x(at) + 3, x(at) + 3 + LABEL];
      if (to <= free) {
        parts.push(s("text", { x: x(at) + (late ? -3 : 3), y: TOP - 4, class: "mark-text", "text-anchor": late ? "end" : "start" }, text));
        free = from;
      }
    }
    for (const line of [...kind.lines].reverse()) {
      for (const [, colour, sampleOf] of series) {
        parts.push(...path(points, (point) => {
          const sample = sampleOf(point);
          return sample ? line.of(sample, point) : null;
        }, x, y, LEFT, `${colour}${line.thin ? " thin" : ""}`));
      }
    }
    if (!points.length) parts.push(s("text", { x: (LEFT + width) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "the first point comes within seconds"));
    else if (!series.some(([, , sampleOf]) => points.some((point) => sampleOf(point)?.[0]))) parts.push(s("text", { x: (LEFT + width) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no traffic"));
    const near = this.cursor === null ? points[points.length - 1] : nearest(points, this.cursor, stepS);
    if (this.cursor !== null) parts.push(s("line", { x1: x(near ? near.at : this.cursor), x2: x(near ? near.at : this.cursor), y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor" }));
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("width", width);
    svg.replaceChildren(...parts);
    const read = series.map(([name, colour, sampleOf]) => {
      const sample = near && sampleOf(near);
      return [name, colour, ...kind.lines.map((line) => (sample ? kind.show(line.of(sample, near)) : "–"))];
    });
    const when = near ? clockTime(near.at) : this.cursor === null ? "" : `${clockTime(this.cursor)}: nothing known`;
    const said = `${kind.title}, ${kind.unit}, at ${when}: ${read.map(([name, , ...values_]) => `${name} ${values_.join(", ")}`).join("; ")}`;
    svg.setAttribute("aria-label", said);
    fill(figure.querySelector(".readout"), [when, read], () => [
      h("span", { class: "quiet" }, when),
      ...read.map(([name, colour, ...values_]) => h("span", { class: "item" }, h("span", { class: `key line ${colour}`, "aria-hidden": "true" }), name, " ", h("b", { class: "number" }, values_[0]), values_.length > 1 && values_[1] !== "–" && h("span", { class: "quiet number" }, ` (${values_[1]})`))),
    ]);
  }
}

function nearest(points, at, stepS) {
  let best = null;
  for (const point of points) {
    const middle = point.at - point.spanS / 2;
    if (Math.abs(middle - at) <= stepS * 1.5 && (!best || Math.abs(middle - at) < Math.abs(best.at - best.spanS / 2 - at))) best = point;
  }
  return best;
}

function path(points, valueOf, x, y, left, kind) {
  const runs = [];
  let run = null;
  let before = null;
  for (const point of points) {
    const value = valueOf(point);
    if (value === null || value === undefined || x(point.at) < left) run = null;
    else {
      if (!run || point.at - point.spanS - before > GAP_S) runs.push((run = []));
      run.push([x(point.at), y(value)]);
    }
    before = point.at;
  }
  return runs.map((each) => each.length === 1
    ? s("circle", { cx: each[0][0], cy: each[0][1], r: 1.8, class: `curve-dot ${kind}` })
    : s("path", { d: each.map(([px, py], index) => `${index ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join(""), class: `curve ${kind}` }));
}

/** How wide a label of a weight may be: 99.99 %. */
const LABEL = 48;
const IDLE = [0, 0, null, null, null];

/** The lines for two cohorts; without either, nothing was compared then. */
export const cohortSeries = () => ["control", "canary"].map((name) =>
  [name, name, (point) => point.cohorts[name] ?? (Object.keys(point.cohorts).length ? IDLE : undefined)]);

/** The lines for sets: the busiest ones, if there are many. `has` guards against a set named like a built-in. */
export function setSeries(status, colour, store) {
  const total = Object.fromEntries(Object.keys(status.sets).map((name) => [name, 0]));
  const of = (point, name) => (Object.hasOwn(point.sets, name) ? point.sets[name] : IDLE);
  for (const point of store.points) for (const name of Object.keys(total)) total[name] += of(point, name)[0];
  const names = Object.keys(total).sort((a, b) => total[b] - total[a] || (a < b ? -1 : 1)).slice(0, MOST_SETS).sort();
  return {
    series: names.map((name) => [name, colour[name], (point) => of(point, name)]),
    left: Object.keys(total).length - names.length,
  };
}

/** When the rollout's weight changed, for the charts. */
export function weightMarks(events) {
  const marks = [];
  let before = null;
  for (const event of events) {
    if (event.dry_run) continue;
    if (event.weight !== before && (before !== null || event.weight > 0)) marks.push([event.at, percent(event.weight)]);
    before = event.weight;
  }
  return marks;
}
