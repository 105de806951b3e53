// The bar of weights and its legend, and the table of sets.

import { badge, fill, h } from "./dom.js";
import { NONE, READMIT, amount, duration, milliseconds, perSecond, percent, rate, whole } from "./words.js";

const COLOURS = 8;

/** Every set's colour, the same for as long as the sets are; the canary has one of its own, and a pattern. */
export function colours(sets, canary) {
  const names = Object.keys(sets).sort();
  return Object.fromEntries(names.map((name, index) => [name, name === canary ? "canary" : `set-${index % COLOURS}`]));
}

function condition(set) {
  if (set.health === "down") return ["bad", "✗", "down: fails its health check"];
  if (set.health === "refused") return ["bad", "✗", "refuses connections"];
  if (set.health === "ejected") return ["bad", "✗", `ejected after failures, for ${duration(set.ejected_for_s)} more`];
  if (set.health !== "up") return ["fair", "!", set.health];
  return ["good", "✓", "up"];
}

/** A set that is full is well, and yet no place for more work. */
function fullness(set) {
  const wait = set.oldest_wait_s === null ? "" : `, the first for ${duration(set.oldest_wait_s)}`;
  return ["fair", "!", `saturated: ${whole(set.queued)} waiting${wait}`];
}

/** Cores in use of all, and under them the tasks that wait. */
function work(set) {
  const cores = set.cores === null || set.cores_busy === null ? NONE : `${amount(set.cores_busy)} of ${amount(set.cores)}`;
  const wait = set.oldest_wait_s === null ? "" : `, ${duration(set.oldest_wait_s)}`;
  return [cores, set.queued > 0 && h("div", { class: "quiet" }, `${whole(set.queued)} waiting${wait}`)];
}

const STATES = {
  ready: ["good", "✓", "ready"],
  drain: ["fair", "▽", "drain: no new work, its tasks still answer"],
  maint: ["fair", "□", "maint: not asked at all"],
};

/** A barred set is in drain too, but not by the file: a rollout was aborted. */
function stateOf(name, set, barred) {
  if (set.state === "drain" && barred.includes(name)) return ["fair", "▽", `barred: its rollout was aborted; ${READMIT} readmits it`];
  return STATES[set.state] ?? ["fair", "!", set.state];
}

const barredIn = (status) => (status.rollout?.barred ?? []).map((bar) => bar.set);

export function showWeights(bar, legend, status, canary) {
  const sets = Object.entries(status.sets);
  const colour = colours(status.sets, canary);
  const barred = barredIn(status);
  const facts = sets.map(([name, set]) => [name, barred.includes(name), set.effective_weight, set.weight, set.health, set.state, colour[name], set.saturated && [set.queued, Math.round(set.oldest_wait_s)]]);
  fill(bar, facts, () => {
    const bearing = sets.filter(([, set]) => set.effective_weight > 0);
    const said = sets.map(([name, set]) => `${name} ${percent(set.effective_weight)}`).join(", ");
    if (!bearing.length) return h("p", { class: "bar empty" }, "✗ No set takes new work now.");
    const strip = h("div", { class: "bar", role: "img", "aria-label": `Weights in force: ${said}` });
    for (const [name, set] of bearing) {
      const wide = set.effective_weight >= 8;
      const part = h("div", { class: `part ${colour[name]}`, title: `${name}: ${percent(set.effective_weight)}`, "data-set": name },
        wide && h("span", { class: set.effective_weight < 30 ? "narrow" : null }, `${name} ${percent(set.effective_weight)}`));
      part.style.width = `${set.effective_weight}%`;
      strip.append(part);
    }
    return strip;
  });
  fill(legend, facts, () => sets.map(([name, set]) =>
    h("li", {},
      h("span", { class: `key ${colour[name]}`, "aria-hidden": "true" }),
      h("b", {}, name), name === canary ? " (canary) " : " ",
      h("span", { class: "number" }, percent(set.effective_weight)),
      Math.abs(set.weight - set.effective_weight) >= 0.01 && h("span", { class: "quiet" }, ` · file says ${percent(set.weight)}`),
      set.health !== "up" && [" ", badge(condition(set))],
      set.saturated && [" ", badge(fullness(set))],
      set.state !== "ready" && [" ", badge(stateOf(name, set, barred))])));
}

export function showSets(place, status, canary) {
  const sets = Object.entries(status.sets);
  const barred = barredIn(status);
  fill(place, [status.sets, canary, barred], () => {
    const heads = ["Set", "State", "Health", "Weight", "Cores busy", "In flight", "Requests", "Errors", "p50", "p99", "Since start"];
    const rows = sets.map(([name, set]) => {
      const room = set.max_inflight === null ? whole(set.inflight) : `${whole(set.inflight)} of ${whole(set.max_inflight)}`;
      const full = set.max_inflight !== null && set.inflight >= set.max_inflight;
      const idle = set.requests_per_s === 0;
      const cells = [
        [h("b", {}, name), name === canary ? " (canary)" : "", h("div", { class: "quiet url" }, set.url), h("div", { class: "quiet build" }, `build ${set.build ?? NONE}`)],
        badge(stateOf(name, set, barred)),
        [badge(condition(set)), set.saturated && h("div", {}, badge(["fair", "!", "saturated"]))],
        [percent(set.effective_weight), Math.abs(set.weight - set.effective_weight) >= 0.01 && h("div", { class: "quiet" }, `file: ${percent(set.weight)}`)],
        work(set),
        [room, set.reading > 0 && h("div", { class: "quiet" }, `${whole(set.reading)} reading`), full && h("div", { class: "badge fair" }, "! full")],
        idle ? h("span", { class: "quiet" }, "no traffic") : perSecond(set.requests_per_s),
        h("span", { class: set.error_rate ? "bad-text" : "" }, rate(set.error_rate)),
        milliseconds(set.p50_ms),
        milliseconds(set.p99_ms),
        h("span", { class: "quiet" }, sinceStart(set)),
      ];
      return h("tr", {}, cells.map((cell, index) =>
        h(index ? "td" : "th", { "data-label": heads[index], scope: index ? null : "row", class: index >= 3 && index < heads.length - 1 ? "number" : null }, cell)));
    });
    const window_s = sets.length ? Math.round(Math.max(...sets.map(([, set]) => set.window_s))) : 0;
    return [
      h("table", { class: "cards" },
        h("thead", {}, h("tr", {}, heads.map((head, index) => h("th", { scope: "col", class: index >= 3 && index < heads.length - 1 ? "number" : null }, head)))),
        h("tbody", {}, rows)),
      h("p", { class: "quiet" }, `Requests, errors and latencies are of the last ${duration(window_s)}.`),
    ];
  });
}

function sinceStart(set) {
  const words = [`${whole(set.answers)} answers`];
  const failed = Object.values(set.failures).reduce((sum, count) => sum + count, 0);
  if (failed) words.push(`${whole(failed)} failed attempts`);
  if (set.retries) words.push(`${whole(set.retries)} retries`);
  if (set.back_pressure) words.push(`${whole(set.back_pressure)} times full`);
  if (set.truncated) words.push(`${whole(set.truncated)} broken off`);
  if (set.ejections) words.push(`${whole(set.ejections)} ejections`);
  return words.join(", ");
}
