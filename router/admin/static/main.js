// The live status page: asks the router again and again, and shows what it said, or that it says nothing.

import { Charts, Store, cohortSeries, setSeries, weightMarks } from "./curves.js";
import { byId, fill, h } from "./dom.js";
import { Away, Refused, ask, poll, setToken } from "./link.js";
import { Orders } from "./orders.js";
import { showPlan } from "./plan.js";
import { VERDICTS, isOff, phaseWords, showChecks, showEvents, showHold, showPhase, showSight, showSteps, showWaits } from "./rollout.js";
import { colours, showSets, showWeights } from "./weights.js";
import { clockTime, duration, percent, routerNow, runTimes, setClock } from "./words.js";

const OLD_MS = 8_000;
const OLD_HIDDEN_MS = 30_000;

const store = new Store();
const charts = new Charts(byId("charts"), byId("curves-note"));
const seen = { status: null, rollout: null, at: null, trouble: "", said: "", checked: null, orders: 0 };
let wanted = null; // "cohorts" or "sets", once somebody chose

function noRollout(detail) {
  return { missing: detail, phase: "idle", set: null, reason: "", orders: [], step: null, of: 0, steps: [], weight: 0, checks: [], events: [], requests: { canary: 0, control: 0 }, verdict: null, verdict_reason: null, dry_run: false, run: 0, event: 0, next: null };
}

async function rolloutOrNone() {
  try {
    return await ask("/rollout");
  } catch (problem) {
    if (problem instanceof Refused && problem.status === 404) return noRollout(`No rollouts here: ${problem.message}.`);
    throw problem;
  }
}

async function look() {
  const before = seen.orders;
  try {
    const [status, rollout, now] = await Promise.all([ask("/status"), rolloutOrNone(), store.refresh()]);
    setClock(now);
    // What was asked before an order's answer came may be older than that answer.
    Object.assign(seen, { status, rollout: seen.orders === before ? rollout : seen.rollout, at: Date.now(), trouble: "" });
    byId("login").close();
    show();
    return true;
  } catch (problem) {
    if (problem instanceof Refused && problem.status === 401) {
      askToken(problem.message);
      seen.trouble = "the admin token is missing or wrong";
    } else if (problem instanceof Refused || problem instanceof Away) seen.trouble = problem.message;
    else {
      seen.trouble = `an answer that this page does not understand (${problem.message})`;
      console.error(problem);
    }
    showLink();
    return false;
  }
}

// Parts.

const isLive = () => seen.at !== null && !seen.trouble && Date.now() - seen.at < (document.hidden ? OLD_HIDDEN_MS : OLD_MS);

function show() {
  const { status, rollout } = seen;
  const canary = rollout.set !== null && !["idle"].includes(rollout.phase) ? rollout.set : null;
  byId("content").hidden = false;
  byId("router-name").textContent = status.router;
  fill(byId("version"), [status.version, status.change, status.file], () => [
    h("span", { title: `${status.file}\nSHA-256 ${status.digest}` }, `version ${status.version}`),
    status.change.why && `: ${status.change.why}`,
    status.change.by && h("span", { class: "quiet" }, ` by ${status.change.by}`),
  ]);
  showAlerts(status);
  showWeights(byId("bar"), byId("legend"), status, canary);
  showPhase(byId("phase"), rollout);
  showSteps(byId("steps"), rollout);
  showHold(byId("hold"), rollout);
  showWaits(byId("waits"), rollout);
  showPlan(byId("plan"), byId("plan-text"), rollout);
  showChecks(byId("checks"), rollout, lastChecks(rollout));
  showSight(byId("sight"), rollout);
  showSets(byId("sets"), status, canary);
  showEvents(byId("events"), rollout);
  showCurves();
  announce(rollout);
  runTimes();
  showLink();
}

/** The checks as this page last saw them in this rollout; an abort clears them at the router. */
function lastChecks(rollout) {
  const ended = ["aborting", "aborted"].includes(rollout.phase);
  if (rollout.checks.length) seen.checked = { set: rollout.set, checks: rollout.checks, at: routerNow() };
  else if (!ended || seen.checked?.set !== rollout.set) seen.checked = null;
  return ended && !rollout.checks.length ? seen.checked : null;
}

function showCurves() {
  const { status, rollout } = seen;
  if (status === null) return;
  const which = wanted ?? (store.hasCohorts ? "cohorts" : "sets");
  byId("show-cohorts").setAttribute("aria-pressed", String(which === "cohorts"));
  byId("show-sets").setAttribute("aria-pressed", String(which === "sets"));
  let series = cohortSeries();
  let note = "Only requests that the weights placed; control is all of them at the other sets. Below 1 ms counts as 1 ms.";
  if (which === "sets") {
    const all = setSeries(status, colours(status.sets, rollout.phase === "idle" ? null : rollout.set), store);
    series = all.series;
    note = all.left ? `The ${series.length} busiest sets; ${all.left === 1 ? "one more is" : `${all.left} more are`} in the table below.` : "";
  } else if (!store.hasCohorts) note = "No rollout compared two sets in this time.";
  if (which === "cohorts" && rollout.leader === false && rollout.led_by) note += ` Drawn from this router's own requests; the checks judge those of all routers that share the rollout, at the leader's, ${rollout.led_by}.`;
  byId("curves-note").textContent = note;
  charts.draw(store, series, weightMarks(rollout.events));
}

function showAlerts(status) {
  const bearing = Object.values(status.sets).filter((set) => set.effective_weight > 0);
  const well = bearing.some((set) => !["down", "refused"].includes(set.health));
  const facts = [status.config_error, status.version, status.file, status.draining, bearing.length > 0, well];
  fill(byId("alerts"), facts, () => [
    status.config_error && h("div", { class: "alert bad" },
      h("b", {}, `✗ The file has a mistake and is not in force; version ${status.version} stays.`),
      h("pre", {}, status.config_error), h("p", { class: "quiet" }, status.file)),
    status.draining && h("div", { class: "alert fair" }, h("b", {}, "▽ This router is stopping: it finishes what is in work.")),
    !bearing.length && h("div", { class: "alert bad" }, h("b", {}, "✗ No set takes new work: requests are answered with 503.")),
    bearing.length > 0 && !well && h("div", { class: "alert bad" }, h("b", {}, "✗ No set that takes new work is alive. As a last resort they are asked all the same, by their weights.")),
  ]);
}

function announce(rollout) {
  const words = [];
  if (rollout.set !== null) words.push(`Rollout of ${rollout.set}: ${phaseWords(rollout.phase)[2]}${rollout.step ? `, step ${rollout.step} of ${rollout.of}` : ""}.`);
  for (const check of rollout.checks) words.push(`${check.name}: ${isOff(check) ? "off" : VERDICTS[check.verdict]?.[2] ?? check.verdict}.`);
  const said = words.join(" ");
  if (seen.said !== said && seen.said !== "") byId("announcer").textContent = said;
  seen.said = said;
}

function showLink() {
  const live = isLive();
  const { status, rollout } = seen;
  document.body.classList.toggle("stale", !live);
  byId("link").className = live ? "good" : "bad";
  const why = seen.trouble || "no answer";
  const word = byId("link-word");
  let text = "● live";
  if (!live) text = seen.at === null ? `✗ no connection yet: ${why}` : `✗ no connection since ${clockTime(seen.at / 1000)}: ${why}. Everything below is of then.`;
  if (word.textContent !== text) word.textContent = text;
  const age = byId("link-age") ?? byId("link").appendChild(h("span", { id: "link-age", "aria-hidden": "true", class: "quiet" }));
  age.textContent = live || seen.at === null ? "" : ` (${duration((Date.now() - seen.at) / 1000)} ago)`;
  if (rollout !== null) orders.update(rollout, live);
  const under = rollout !== null && rollout.set !== null && rollout.phase !== "idle" ? `${phaseWords(rollout.phase)[1]} ${rollout.set} ${percent(rollout.now)} ${rollout.phase} · ` : "";
  const title = `${live ? under : "✗ no connection · "}router ${status?.router ?? ""}`;
  if (document.title !== title) document.title = title;
}

function askToken(detail) {
  const dialog = byId("login");
  if (dialog.open) return;
  byId("login-error").textContent = sessionStorage.getItem("gc-admin-token") ? "That token is not right." : "";
  if (byId("confirm").open) byId("confirm").close();
  dialog.showModal();
  byId("login-token").focus();
}

// Start.

const orders = new Orders((rollout) => {
  seen.orders += 1;
  seen.rollout = rollout;
  show();
  polling.now();
});
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("login-token").value.trim());
  byId("login-token").value = "";
  byId("login").close();
  polling.now();
});
for (const which of ["cohorts", "sets"]) {
  byId(`show-${which}`).addEventListener("click", () => {
    wanted = which;
    showCurves();
  });
}
setInterval(() => {
  runTimes();
  showLink();
  // Time goes on without news: the gap at the right is what is not known.
  if (!isLive()) showCurves();
}, 1_000);
const polling = poll(look);
