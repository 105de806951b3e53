// What a start would do, before anybody starts: steps, what each needs to be judged, and how long it takes.

import { fill, h } from "./dom.js";
import { CHECKS } from "./rollout.js";
import { counted, duration, percent, perSecond } from "./words.js";

function takes(next) {
  const waits = [next.pauses && counted(next.pauses, "pause"), next.gates && counted(next.gates, "gate")].filter(Boolean);
  const time = next.about_s === null ? "It would not get through all steps by itself: there are too few requests to judge by" : `About ${duration(next.about_s)}${waits.length ? `, and ${waits.join(" and ")}` : ""}`;
  return `${time}, at the present ${perSecond(next.requests_per_s)} of all sets.`;
}

const stepInShort = (step) => (step.pause ? "a pause" : `${percent(step.weight)}${step.hold_s ? ` for ${duration(step.hold_s)}` : ""}`);

const down = ({ set, lowers }) => `${set} goes down first, from ${percent(lowers.from)} to ${percent(lowers.to)}${lowers.glides ? ", move by move, as the other sets can bear it" : ""}.`;

/** For the dialog: what the button does. */
export function planInShort(next) {
  const lines = [];
  if (next.returning) lines.push(`${next.set} carried as much not long ago: it gets that back at once, without the steps.`);
  if (next.lowers) lines.push(down(next));
  if (!next.returning) lines.push(`${next.set} gets ${next.steps.map(stepInShort).join(", then ")}.`);
  lines.push(takes(next));
  if (next.dry_run) lines.push("A dry run: it judges, and touches no weight.");
  if (next.steps.some((step) => step.starves)) lines.push(`Some steps get too few requests to be judged in time; the rollout would ${next.on_no_data} there.`);
  return h("div", {}, lines.map((line) => h("p", {}, line)));
}

function needs(step, next) {
  if (step.pause) return "until somebody resumes";
  const after = step.enough_s === null ? "no requests" : `enough after ${duration(step.enough_s)}`;
  const sick = (step.sick_s ?? null) !== null && h("div", { class: "quiet" }, `If every request fails: back after ${duration(Math.max(1, step.sick_s))}`);
  return [h("div", {}, `${perSecond(step.compared_per_s)} a side, ${after}`), sick, step.starves && h("div", { class: "badge fair" }, `! too few in time: it would ${next.on_no_data}`)];
}

function stepRows(next) {
  const heads = ["Step", "Weights", "Hold", "Compared"];
  const rows = next.steps.map((step, index) => [
    [h("b", {}, `${index + 1}. `, step.pause ? "pause" : percent(step.weight)), step.gate && h("div", { class: "quiet", title: step.gate }, "asks a gate first")],
    step.pause ? "as before" : Object.entries(step.effective).map(([name, share], place) => [place > 0 && ", ", h("span", { class: "one" }, `${name} ${percent(share)}`)]).flat(),
    step.pause ? "–" : step.hold_s ? duration(step.hold_s) : "none",
    needs(step, next),
  ]);
  return rowsUnder(heads, rows);
}

function checkRows(next) {
  const heads = ["Check", "Limit", "Fails after", "Proof after"];
  const many = (count) => (count === null ? "never" : `${counted(count, "request")} a side`);
  const rows = next.checks.map((check) => [
    [h("b", {}, CHECKS[check.name] ?? check.name), check.threshold !== null && !check.aborts && h("div", { class: "quiet" }, "reports only, never decides")],
    check.threshold === null ? "off" : `${check.threshold} ${check.unit === "points" ? "points" : "%"}`,
    check.threshold === null ? "–" : many(check.fails_after),
    check.threshold === null || check.name === "parts" ? "–" : many(check.proves_after),
  ]);
  return rowsUnder(heads, rows);
}

const rowsUnder = (heads, rows) => h("table", { class: "cards plan" },
  h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
  h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => h(index ? "td" : "th", { "data-label": heads[index], scope: index ? null : "row" }, cell))))));

export function showPlan(box, place, rollout) {
  const next = rollout.next ?? null;
  if (box.hidden && next) box.open = rollout.phase === "idle";
  box.hidden = next === null;
  fill(place, next, () => next === null ? [] : [
    next.refused !== null && h("p", { class: "bad-text" }, `✗ It would be refused now: ${next.refused}.`),
    next.dry_run && h("p", {}, "A dry run: it judges, and touches no weight."),
    next.returning && h("p", {}, `${next.set} carried as much not long ago: it gets that back at once, without the steps.`),
    next.lowers && h("p", { class: "fair-text" }, `! ${down(next)}`),
    h("p", {}, `Releases ${next.set}, compared with ${next.stable.join(", ") || "nobody"}. ${takes(next)}`),
    stepRows(next),
    h("p", { class: "quiet" }, `Nothing passes before both sides have ${counted(next.min_requests, "request")}. Below: how much worse than control a canary may be; after how many requests it fails if all of it goes wrong (or takes twice what is allowed); and after how many it is proven, not just presumed, that all is well. A canary as good as control is aborted in ${percent(100 - next.confidence)} of rollouts at most.`),
    checkRows(next),
    h("p", {}, `A canary passes within its margins: ${(next.let_through ?? []).join("; ")}.`),
  ]);
}
