// Draws the report of a simulated run. One interval is pointed at in all plots at once; a row of the table chooses
// the account whose waits and cold starts are drawn.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const names = Object.keys(data.accounts);
const stepS = data.length_s / data.intervals.length;
const WIDTH = 640, HEIGHT = 190, LEFT = 58, RIGHT = 8, TOP = 8, BOTTOM = 20;
const LEAST_S = 0.001;
let chosen = null;
let cursor = null;

const number = (value, digits = 1) => value.toLocaleString("en", { maximumFractionDigits: digits });
const percent = (share) => `${number(100 * share, share && share < 0.01 ? 3 : 1)} %`;

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (!value) return "0";
  if (value < 1) return `${number(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${number(value)} s`;
  return value < 7200 ? `${number(value / 60)} min` : `${number(value / 3600)} h`;
}

function clock(value) {
  const whole = Math.round(value);
  const two = (each) => String(each).padStart(2, "0");
  const time = `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}`;
  return data.length_s < 7200 ? `${time}:${two(whole % 60)}` : time;
}

function h(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function s(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

const colour = (index) => `--mine: var(--c${index % 8})`;
const of = (interval) => (chosen === null ? interval.all : interval.accounts[chosen]);

// What is drawn: lines and bars have a value for each interval, areas are stacked in the order of the accounts.
const PLOTS = [
  {
    title: "Waits", log: true, chosen: true, show: seconds,
    lines: [["median", "wait_p50_s", 0], ["p95", "wait_p95_s", 2], ["p99", "wait_p99_s", 1], ["longest", "wait_max_s", 5]]
      .map(([name, field, index]) => ({ name, index, of: (each) => of(each)[field] })),
  },
  {
    title: "Cores in use", show: (value) => number(value), areas: "cores",
    lines: [{ name: "up", limit: true, of: (each) => (each.all.utilisation ? each.all.cores / each.all.utilisation : null) }],
  },
  { title: "Shares of the cores in use", show: percent, areas: "share", top: 1 },
  {
    title: "Tasks that arrive", show: (value) => `${number(value)}/s`,
    lines: names.map((name, index) => ({ name, index, of: (each) => each.accounts[name].per_s })),
  },
  { title: "Tasks that wait", least: 10, show: (value) => number(value), lines: [{ name: "all", index: 0, of: (each) => each.all.waiting }] },
  { title: "Cold starts", chosen: true, least: 0.01, show: percent, bars: [{ name: "of the tasks that begin", index: 0, of: (each) => of(each).cold }] },
  {
    title: "Fairness", show: (value) => number(value, 3), top: 1, gaps: true,
    lines: [{ name: "between accounts that compete (1: each holds its share)", index: 2, of: (each) => each.all.fairness }],
  },
  {
    title: "Refused, failed, lost, given way", least: 10, show: (value) => number(value),
    lines: [["refused", 1], ["failed", 5], ["lost", 3], ["gave_way", 4]]
      .map(([field, index]) => ({ name: field.replace("_", " "), index, of: (each) => each.all[field] })),
  },
];

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** The scale of a plot: where a value is, and the values at which lines are drawn. */
function scale(plot) {
  const values = data.intervals.flatMap((each) => [
    ...(plot.lines ?? []), ...(plot.bars ?? []),
  ].map((line) => line.of(each) ?? 0).concat(plot.areas ? [names.reduce((sum, name) => sum + each.accounts[name][plot.areas], 0)] : []));
  const most = Math.max(...values);
  const down = HEIGHT - BOTTOM, high = down - TOP;
  if (plot.log) {
    const decades = Math.max(1, Math.ceil(Math.log10(Math.max(most, LEAST_S * 10) / LEAST_S) - 1e-9));
    return {
      y: (value) => (value <= LEAST_S ? down : down - (high * Math.log10(value / LEAST_S)) / decades),
      ticks: Array.from({ length: decades + 1 }, (_, index) => LEAST_S * 10 ** index),
    };
  }
  const top = plot.top ?? nice(Math.max(most, plot.least ?? 1e-9));
  return { y: (value) => down - (high * value) / top, ticks: [0, top / 2, top] };
}

const x = (atS) => LEFT + ((WIDTH - LEFT - RIGHT) * atS) / data.length_s;
const middle = (each) => x(each.at_s + stepS / 2);

function path(plot, line, y) {
  let drawn = "";
  let pen = "M";
  for (const each of data.intervals) {
    const value = line.of(each);
    if (value === null || value === undefined) { pen = "M"; continue; }
    drawn += `${pen}${middle(each).toFixed(1)},${y(value).toFixed(1)}`;
    // A value with gaps on both sides is a short line.
    if (plot.gaps) drawn += "h1.5";
    pen = "L";
  }
  return drawn;
}

function areas(plot, y, svg) {
  const below = data.intervals.map(() => 0);
  names.forEach((name, index) => {
    const lower = [...below];
    data.intervals.forEach((each, at) => { below[at] += each.accounts[name][plot.areas]; });
    const upper = data.intervals.map((each, at) => `${middle(each).toFixed(1)},${y(below[at]).toFixed(1)}`);
    const back = data.intervals.map((each, at) => `${middle(each).toFixed(1)},${y(lower[at]).toFixed(1)}`).reverse();
    svg.append(s("path", { class: "area", style: colour(index), d: `M${upper.join("L")}L${back.join("L")}Z` }));
  });
}

function draw() {
  const figures = PLOTS.map((plot) => {
    const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": plot.title });
    const { y, ticks } = scale(plot);
    for (const tick of ticks) {
      svg.append(s("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
      svg.append(s("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, plot.log && tick === LEAST_S ? "≤ 1 ms" : plot.show(tick)));
    }
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      svg.append(s("text", { x: x(part * data.length_s), y: HEIGHT - 4, "text-anchor": anchor }, clock(part * data.length_s)));
    }
    if (plot.areas) areas(plot, y, svg);
    const wide = Math.max(1, x(stepS) - x(0) - 1);
    for (const bar of plot.bars ?? []) {
      for (const each of data.intervals) {
        const top = y(bar.of(each));
        svg.append(s("rect", { class: "bar", style: colour(bar.index), x: middle(each) - wide / 2, width: wide, y: top, height: HEIGHT - BOTTOM - top }));
      }
    }
    for (const line of plot.lines ?? []) {
      svg.append(s("path", { class: line.limit ? "line limit" : "line", style: line.limit ? "" : colour(line.index), d: path(plot, line, y) }));
    }
    svg.append(s("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }));
    const legend = [
      ...(plot.areas ? names.map((name, index) => [name, colour(index)]) : []),
      ...[...(plot.lines ?? []), ...(plot.bars ?? [])].map((line) => [line.name, line.limit ? "--mine: var(--quiet)" : colour(line.index)]),
    ];
    const whose = plot.chosen ? ` of ${chosen ?? "all accounts"}` : "";
    return h("figure", {},
      h("figcaption", {}, h("b", {}, `${plot.title}${whose}`),
        ...legend.map(([name, style]) => h("span", { class: "legend" }, h("span", { class: "key", style }), name))),
      svg);
  });
  document.getElementById("plots").replaceChildren(...figures);
  for (const svg of document.querySelectorAll("#plots svg")) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const part = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
      point(Math.min(data.intervals.length - 1, Math.max(0, Math.floor(part * data.intervals.length))));
    });
  }
  point(cursor);
}

function point(at) {
  cursor = at;
  for (const line of document.querySelectorAll(".cursor")) {
    line.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null) continue;
    line.setAttribute("x1", middle(data.intervals[at]));
    line.setAttribute("x2", middle(data.intervals[at]));
  }
  const interval = at === null ? null : data.intervals[at];
  const figures = interval === null ? (chosen === null ? data.all : data.accounts[chosen]) : of(interval);
  const when = interval === null ? "the whole run" : `${clock(interval.at_s)} to ${clock(interval.at_s + stepS)}`;
  const said = [
    ["", `${when}, ${chosen ?? "all accounts"}`],
    ["tasks", number(figures.tasks, 0)], ["median wait", seconds(figures.wait_p50_s)], ["p95", seconds(figures.wait_p95_s)],
    ["p99", seconds(figures.wait_p99_s)], ["longest", seconds(figures.wait_max_s)], ["cold", percent(figures.cold)],
    ["cores", number(figures.cores)], ["in use", percent(figures.utilisation)], ["wait now", number(figures.waiting, 0)],
  ];
  document.getElementById("readout").replaceChildren(...said.map(([name, value]) => h("span", {}, name ? `${name} ` : "", h("b", {}, value))));
}

function table() {
  const columns = [
    ["tasks", (each) => number(each.tasks, 0)], ["per s", (each) => number(each.per_s)],
    ["median wait", (each) => seconds(each.wait_p50_s)], ["p95", (each) => seconds(each.wait_p95_s)],
    ["p99", (each) => seconds(each.wait_p99_s)], ["longest", (each) => seconds(each.wait_max_s)],
    ["cold", (each) => percent(each.cold)], ["cores", (each) => number(each.cores)], ["share", (each) => percent(each.share)],
    ["refused", (each) => number(each.refused)], ["failed", (each) => number(each.failed)],
    ["lost", (each) => number(each.lost)], ["gave way", (each) => number(each.gave_way)],
  ];
  const row = (name, figures, key, whose) => {
    const made = h("tr", { tabindex: 0, "aria-selected": String(chosen === whose) },
      h("td", {}, ...(key === null ? [] : [h("span", { class: "key", style: colour(key) })]), name),
      ...columns.map(([, show]) => h("td", {}, show(figures))));
    const choose = () => { chosen = whose; table(); draw(); };
    made.addEventListener("click", choose);
    made.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
    return made;
  };
  const rows = names.map((name, index) => row(name, data.accounts[name], index, name));
  document.getElementById("accounts").replaceChildren(
    h("thead", {}, h("tr", {}, h("th", {}, "account"), ...columns.map(([name]) => h("th", {}, name)))),
    h("tbody", {}, ...rows, row("all accounts", data.all, null, null)));
}

function summary() {
  document.getElementById("about").textContent = data.about;
  document.getElementById("facts").textContent =
    `scenario ${data.scenario}, ${clock(data.length_s)} h, cores: ${number(data.cores)}, seed: ${data.seed}; played in ${number(data.took_s)} s of CPU time`;
  const tiles = [
    ["tasks", number(data.all.tasks, 0)], ["median wait", seconds(data.all.wait_p50_s)], ["p95 wait", seconds(data.all.wait_p95_s)],
    ["p99 wait", seconds(data.all.wait_p99_s)], ["cores in use", percent(data.all.utilisation)], ["cold starts", percent(data.all.cold)],
    ["refused", number(data.all.refused)], ["attempts lost", number(data.all.lost)],
  ];
  document.getElementById("tiles").replaceChildren(...tiles.map(([name, value]) => h("div", {}, h("b", {}, value), h("span", { class: "quiet" }, name))));
  const found = data.expected.map((each) => h("li", {}, h("span", { class: `badge ${each.good ? "good" : "bad"}` }, each.good ? "met" : "missed"), each.expected));
  document.getElementById("expected").replaceChildren(...(found.length ? found : [h("li", { class: "quiet" }, "the scenario has none")]));
}

document.getElementById("plots").addEventListener("pointerleave", () => point(null));
summary();
table();
draw();
