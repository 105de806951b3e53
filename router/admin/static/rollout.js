// The rollout: where it stands, its steps, its checks with intervals, its events.

import { badge, fill, h, s } from "./dom.js";
import { READMIT, ago, counted, duration, milliseconds, percent, signed, whole } from "./words.js";

const PHASES = {
  idle: ["quiet", "○", "no rollout is under way"],
  holding: ["busy", "▶", "holding: the step's time runs"],
  waiting: ["fair", "…", "waiting: the hold is over, the evidence is not there"],
  gated: ["fair", "?", "at a gate: it is asked whether the step may begin"],
  paused: ["fair", "‖", "paused until somebody resumes"],
  returning: ["busy", "▶", "returning to a version that carried all not long ago"],
  aborting: ["bad", "↩", "aborting: on the way to weight 0"],
  aborted: ["bad", "✗", "aborted: the canary has weight 0"],
  done: ["good", "✓", "done: at the last step's weight; write it into the file"],
};
export const VERDICTS = {
  pass: ["good", "✓", "pass"],
  fail: ["bad", "✗", "fail: surely worse than allowed"],
  inconclusive: ["fair", "?", "inconclusive: cannot be told yet"],
};
const OFF = ["quiet", "○", "off"];

/** A check without a limit is not judged: that it passes says nothing. */
export const isOff = (check) => check.threshold === null && check.verdict === "pass";

export function verdictOf(check) {
  if (isOff(check)) return OFF;
  return (VERDICTS[check.verdict] ?? ["fair", "!"]).slice(0, 2).concat(check.verdict);
}

export const CHECKS = { errors: "Error rate", tasks: "Failed tasks", async: "Failed async tasks", latency: "95th percentile of latency", room: "Full too often", parts: "One image, account or reason" };

export const phaseWords = (phase) => PHASES[phase] ?? ["fair", "!", phase];

export function showPhase(place, rollout) {
  const { phase, set, reason, dry_run, plan_changed, weight, now, error, hands_off, barred = [] } = rollout;
  fill(place, [phase, set, reason, dry_run, plan_changed, weight, now, error, hands_off, barred, rollout.orders, rollout.missing], () => {
    if (rollout.missing) return h("p", { class: "quiet" }, rollout.missing);
    const none = phase === "idle" && set === null;
    const lines = [h("p", { class: "phase" }, badge(phaseWords(phase)), set !== null && [" ", h("b", {}, set), ` at ${percent(now)}${dry_run && phase !== "idle" ? `, which would be ${percent(weight)}` : ""}`], dry_run && h("span", { class: "badge fair" }, "dry run: no weight is touched"))];
    if (none) lines.push(h("p", { class: "quiet" }, rollout.orders.includes("start")
      ? "The file has a plan. Start it here, or with gcompute router rollout start."
      : "The file has no `rollout` section. Write one, and its steps appear here."));
    if (reason) lines.push(h("p", {}, reason));
    if (hands_off) lines.push(h("p", { class: "fair-text" }, "! The weights were edited by hand; the file's count until somebody resumes, skips or aborts."));
    for (const bar of barred) lines.push(h("p", { class: "fair-text" }, `! ${bar.set} gets no new request, by weight or rule, since it was taken back (${bar.reason}); ${READMIT} readmits it.`));
    if (plan_changed) lines.push(h("p", { class: "fair-text" }, "! The file's plan has changed since the start; this rollout goes on with the old one."));
    if (error) lines.push(h("p", { class: "bad-text" }, `✗ The state on disk is not followed: ${error}`));
    return lines;
  });
}

export function showSteps(place, rollout) {
  const { steps, phase } = rollout;
  const ended = phase === "aborted" || phase === "idle";
  fill(place, [steps, ended], () => steps.map((step, index) => {
    const [kind, sign, word] = step.now ? ["now", "▶", "now"] : step.done ? ["done", "✓", "done"] : ended ? ["later", "–", "not reached"] : ["later", "○", "to come"];
    return h("li", { class: kind, "aria-current": step.now ? "step" : null },
      h("span", { class: "sign", "aria-hidden": "true" }, sign),
      h("span", { class: "unseen" }, `Step ${index + 1}, ${word}: `),
      h("b", {}, step.pause ? "pause" : percent(step.weight)),
      h("span", { class: "quiet" }, step.pause ? "until resumed" : step.hold_s ? `for ${duration(step.hold_s)}` : "no hold"),
      step.gate !== null && h("span", { class: "quiet", title: step.gate }, "asks a gate"));
  }));
  place.hidden = !steps.length;
}

export function showHold(place, rollout) {
  const { phase, hold_s, held_s, hold_left_s, waited_s } = rollout;
  const timed = hold_s > 0 && (phase === "holding" || phase === "paused" || phase === "waiting");
  fill(place, [phase, timed, Math.round(held_s), hold_s, Math.round(waited_s)], () => {
    if (!timed) return [];
    const label = phase === "waiting" ? `hold over, waiting for evidence for ${duration(waited_s)}` : `${duration(held_s)} of ${duration(hold_s)}, ${duration(hold_left_s)} left${phase === "paused" ? " (stopped)" : ""}`;
    return [h("progress", { max: hold_s, value: Math.min(held_s, hold_s), "aria-label": "Hold of this step" }), h("span", { class: "quiet" }, label)];
  });
}

/** What is waited for, and how long at most. */
export function showWaits(place, rollout) {
  const { waits = null, paused_s = 0, phase } = rollout;
  const left = waits?.at_most_s ?? null;
  fill(place, [phase, waits?.for, waits?.then, left === null ? null : Math.round(left), Math.round(paused_s)], () => {
    if (!waits) return [];
    return h("p", { class: "quiet" }, `Waits for ${waits.for}${left === null ? "" : `, ${duration(left)} at most`}; then: ${waits.then}.${paused_s >= 1 ? ` Paused for ${duration(paused_s)}.` : ""}`);
  });
}

// Requests beside the verdict.

const KINDS = { error: ["bad", "✗", "error"], task: ["fair", "!", "failed task"], slow: ["fair", "…", "slow"], open: ["bad", "…", "open"] };

const openWords = ({ requests, oldest_s }) => `${counted(requests, "request")}${oldest_s === null ? "" : `, the oldest for ${duration(oldest_s)}`}`;

/** How many requests are open, and the few of the canary that tell most. */
export function showSight(place, rollout) {
  const { open = null, witnesses = [], left_out = 0, phase } = rollout;
  const shown = open !== null && phase !== "idle";
  fill(place, [shown, shown && open, shown && witnesses, left_out], () => {
    if (!shown) return [];
    const heads = ["Request", "Set", "Ended", "After", "Id"];
    return [
      h("p", {}, `Without an answer yet at the canary: ${openWords(open.canary)}. At control: ${openWords(open.control)}.`),
      left_out > 0 && h("p", { class: "quiet" }, `Not judged: ${counted(left_out, "request")}, as one key or address had its share.`),
      witnesses.length > 0 && h("p", {}, "The canary's requests that tell most:"),
      witnesses.length > 0 && h("table", { class: "cards" },
        h("thead", {}, h("tr", {}, heads.map((head, index) => h("th", { scope: "col", class: index === 3 ? "number" : null }, head)))),
        h("tbody", {}, witnesses.map((each) => {
          const cells = [
            h("div", {}, badge(KINDS[each.kind] ?? ["fair", "!", each.kind]), " ", each.request, each.image !== null && h("div", { class: "quiet" }, each.image)),
            each.set,
            each.status,
            milliseconds(each.duration_s * 1000),
            h("code", {}, each.id),
          ];
          return h("tr", {}, cells.map((cell, index) => h(index ? "td" : "th", { "data-label": heads[index], scope: index ? null : "row", class: index === 3 ? "number" : null }, cell)));
        }))),
    ];
  });
}

// Checks.

function number(check, value, decimals = 2) {
  if (value === null || value === undefined) return null;
  return check.unit === "points" ? `${signed(value, decimals)} points` : `${signed(value, 1)} %`;
}

function side(check, value) {
  if (value === null || value === undefined) return "–";
  return check.side_unit === "µs" ? milliseconds(value / 1000) : percent(value);
}

function interval(check) {
  const { low, high, difference } = check;
  if (difference === null) return "–";
  const to = number(check, high) ?? "no bound yet";
  const from = low === null ? "no bound yet" : check.unit === "points" ? signed(low, 2) : `${signed(low, 1)}`;
  return `${from} … ${to}`;
}

/** Where the interval lies between "no worse" and the threshold. */
function picture(check) {
  const { low, high, difference, threshold } = check;
  if (difference === null || threshold === null) return null;
  const edge = threshold * 2.2;
  const x = (value) => 100 + (Math.max(-edge, Math.min(edge, value)) / edge) * 96;
  const from = low === null ? 2 : x(low);
  const to = high === null ? 198 : x(high);
  const kind = check.verdict === "fail" ? "bad" : check.verdict === "pass" ? "good" : "fair";
  return s("svg", { viewBox: "0 0 200 30", class: `interval ${kind}`, "aria-hidden": "true" },
    s("rect", { x: x(threshold), y: 2, width: 198 - x(threshold), height: 16, class: "beyond" }),
    s("line", { x1: 2, x2: 198, y1: 10, y2: 10, class: "rail" }),
    s("line", { x1: 100, x2: 100, y1: 4, y2: 16, class: "zero" }),
    s("line", { x1: x(threshold), x2: x(threshold), y1: 1, y2: 19, class: "limit" }),
    s("rect", { x: from, y: 7, width: Math.max(2, to - from), height: 6, rx: 2, class: "span" }),
    s("circle", { cx: x(difference), cy: 10, r: 4, class: "dot" }),
    s("text", { x: 100, y: 28, "text-anchor": "middle" }, "equal"),
    s("text", { x: x(threshold), y: 28, "text-anchor": "middle" }, "limit"));
}

function checkRows(checks) {
  const heads = ["Check", "Canary", "Control", "Difference", "Interval", "Limit", "Verdict"];
  return h("table", { class: "cards checks" },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    checks.map((check) => {
      const cells = [
        h("b", {}, CHECKS[check.name] ?? check.name),
        side(check, check.canary),
        side(check, check.control),
        check.difference === null ? "–" : number(check, check.difference),
        h("div", {}, picture(check), h("span", { class: "number" }, interval(check))),
        check.threshold === null ? "off" : number(check, check.threshold),
        h("div", {}, badge(verdictOf(check)), check.report_only && h("div", { class: "quiet" }, "reports only, never decides")),
      ];
      return h("tbody", { "data-check": check.name },
        h("tr", {}, cells.map((cell, index) => h(index ? "td" : "th", { "data-label": heads[index], scope: index ? null : "row", class: [1, 2, 3, 5].includes(index) ? "number" : index === 4 ? "between" : null }, cell))),
        h("tr", { class: "why" }, h("td", { colspan: heads.length, class: "reason" }, check.reason)));
    }));
}

/** `last`: the checks as they were last seen before an abort, which clears them. */
export function showChecks(place, rollout, last) {
  const { checks, requests, verdict, verdict_reason, phase, reason } = rollout;
  fill(place, [checks, requests, verdict, verdict_reason, phase, last], () => {
    if (checks.length) {
      return [
        h("p", { class: "overall" }, badge(VERDICTS[verdict] ?? ["fair", "?", "no verdict yet"]), " ", verdict_reason ?? "", h("span", { class: "quiet" }, ` · judged: ${counted(requests.canary, "request")} of the canary, ${whole(requests.control)} of control`)),
        checkRows(checks),
      ];
    }
    if (phase === "aborting" || phase === "aborted") {
      return [
        h("p", { class: "overall" }, badge(["bad", "✗", "ended"]), " ", reason),
        last !== null && h("p", { class: "quiet" }, "What this page saw last before that, ", ago(last.at), ":"),
        last !== null && h("div", { class: "past" }, checkRows(last.checks)),
      ];
    }
    const live = ["holding", "waiting", "paused"].includes(phase);
    return h("p", { class: "quiet" }, live ? "Nothing was compared yet at this weight." : "Checks appear while a rollout compares the two.");
  });
}

export function showEvents(place, rollout) {
  fill(place, rollout.events, () => {
    if (!rollout.events.length) return h("li", { class: "quiet" }, "none yet");
    return [...rollout.events].reverse().map((event) => h("li", {},
      h("span", { class: "when" }, ago(event.at)),
      h("b", { class: "kind" }, event.kind),
      h("span", {}, event.text, event.by && h("span", { class: "quiet" }, ` · by ${event.by}`), event.dry_run && h("span", { class: "quiet" }, " · dry run")),
      h("span", { class: "number quiet" }, percent(event.weight))));
  });
}
