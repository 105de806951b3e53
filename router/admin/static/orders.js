// Buttons that order something, each behind a dialog that says what will happen; Cancel has the focus.

import { byId, enable, h, usable } from "./dom.js";
import { Away, Refused, ask } from "./link.js";
import { planInShort } from "./plan.js";
import { duration, percent } from "./words.js";

const OPERATOR = "gc-operator";
/** The title of a refusal that `force` overrides. */
const NEEDS_FORCE = "Only with force";
const ORDER_TIMEOUT_MS = 15_000;
/** These mean what was on the page, to the last event; the others hold wherever this rollout is. */
const OF_A_MOMENT = new Set(["start", "resume", "skip", "promote", "end"]);
const ALWAYS_SHOWN = new Set(["pause", "skip", "promote", "abort"]);

const stepWords = (step) =>
  step.pause ? "a pause, until somebody resumes" : `${percent(step.weight)}${step.hold_s ? ` for ${duration(step.hold_s)}` : ""}${step.gate ? ", behind a gate" : ""}`;

function last(rollout) {
  return [...rollout.steps].reverse().find((step) => !step.pause) ?? null;
}

const EXPLAINED = {
  start: ({ next }) => [next ? `Start the rollout of ${next.set}` : "Start the rollout", "Start", next ? planInShort(next) : "Starts the rollout that the file describes, at its first step."],
  pause: ({ set, now: weight }) => [`Pause the rollout of ${set}`, "Pause", `${set} stays at ${percent(weight)} until somebody resumes. The checks go on: a canary that is surely worse than allowed is still aborted.`],
  resume: (rollout) => {
    const next = rollout.steps[rollout.step];
    const now = rollout.steps[rollout.step - 1];
    const text = now?.pause ? (next ? `Goes on with step ${rollout.step + 1}: ${stepWords(next)}.` : "This was the last step: the rollout is done then.") : `Goes on with step ${rollout.step}${now ? `: ${stepWords(now)}` : ""}.`;
    return [`Resume the rollout of ${rollout.set}`, "Resume", text];
  },
  skip: (rollout) => {
    const { set, step, of, phase, steps } = rollout;
    const next = steps[step];
    const now = steps[step - 1];
    let text = next ? `Ends step ${step} of ${of} now, whatever the checks say. Next is step ${step + 1}: ${stepWords(next)}.` : `Ends the last step now, whatever the checks say. The rollout is done then.`;
    if (phase === "gated" && now) text = `Enters step ${step} (${stepWords(now)}) without its gate's leave.`;
    return [`Skip a step of the rollout of ${set}`, "Skip step", text];
  },
  promote: (rollout) => {
    const final = last(rollout);
    const left = rollout.steps.slice(rollout.step, rollout.steps.lastIndexOf(final));
    return [`Promote ${rollout.set}`, final ? `Promote to ${percent(final.weight)}` : "Promote", h("div", {},
      h("p", {}, `${rollout.set} goes from ${percent(rollout.now)} to ${final ? percent(final.weight) : "the last step"} at once. No hold, check or gate is waited for.`),
      h("p", {}, `Skipped: the rest of step ${rollout.step}${left.map((step, index) => `; step ${rollout.step + index + 1}, ${stepWords(step)}`).join("")}; the hold of the last step.`))];
  },
  abort: ({ set, now: weight, phase }) => [`Abort the rollout of ${set}`, "Abort",
    phase === "aborting" ? `${set} is on its way to 0 % already, now at ${percent(weight)}.` : `${set} goes from ${percent(weight)} to 0 %. If the other sets are cold, in a few moves within seconds.`],
  end: ({ set, in_force, weights }) => [`End the rollout of ${set}`, "End", `The file's weights count again: ${in_force ? `${in_force.set} goes from ${percent(in_force.weight)} to ${percent(weights[in_force.set] ?? 0)} at once` : "nothing moves"}.`],
};

export class Orders {
  /** `done(answer)` is called with the rollout as it is after an order. */
  constructor(done) {
    this.done = done;
    this.rollout = null;
    this.live = false;
    this.asked = null;
    this.sending = false;
    this.dialog = byId("confirm");
    for (const button of byId("orders").querySelectorAll("button")) {
      button.addEventListener("click", () => this.open(button.dataset.verb));
    }
    byId("confirm-no").addEventListener("click", () => this.dialog.close());
    byId("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.dialog.addEventListener("close", () => {
      const verb = this.asked?.verb;
      this.asked = null;
      const button = byId("orders").querySelector(`[data-verb="${verb}"]`);
      (button && !button.hidden ? button : byId("rollout")).focus();
    });
  }

  /** What can be ordered now; nothing without a connection. */
  update(rollout, live) {
    this.rollout = rollout;
    this.live = live;
    const possible = new Set(rollout.orders);
    if (possible.has("skip")) possible.add("promote");
    this.possible = possible;
    const steers = rollout.set !== null && [...possible].some((verb) => verb !== "start" && verb !== "end");
    for (const button of byId("orders").querySelectorAll("button")) {
      const verb = button.dataset.verb;
      const gone = !possible.has(verb) && !(ALWAYS_SHOWN.has(verb) && steers);
      if (gone && button === document.activeElement) byId("rollout").focus();
      button.hidden = gone;
      enable(button, live && possible.has(verb));
    }
    const note = live ? "" : "Nothing can be ordered without a connection.";
    if (byId("orders-note").textContent !== note) byId("orders-note").textContent = note;
    if (this.asked && !this.sending) this.recheck();
  }

  open(verb) {
    const { rollout } = this;
    if (!this.live || !this.possible.has(verb)) return;
    const [title, label, text] = EXPLAINED[verb](rollout);
    // What the order is given for: the router refuses it when the rollout is elsewhere by then.
    const given = { run: rollout.run };
    if (OF_A_MOMENT.has(verb)) given.event = rollout.event;
    if (verb === "start" && rollout.next) given.plan = rollout.next.plan;
    this.asked = { verb, given };
    byId("confirm-title").textContent = title;
    byId("confirm-text").replaceChildren(text instanceof Node ? text : h("p", {}, text), ...(rollout.dry_run ? [h("p", {}, "This is a dry run: no weight is touched.")] : []));
    byId("confirm-by").value = localStorage.getItem(OPERATOR) ?? "";
    byId("confirm-why").value = "";
    byId("confirm-at-once").checked = verb === "abort" && rollout.phase === "aborting";
    byId("confirm-at-once-row").hidden = verb !== "abort";
    byId("confirm-force").checked = false;
    byId("confirm-force-row").hidden = true;
    byId("confirm-error").textContent = "";
    const yes = byId("confirm-yes");
    yes.textContent = label;
    enable(yes, true);
    yes.className = verb === "abort" ? "danger" : "primary";
    this.dialog.showModal();
    byId("confirm-no").focus();
  }

  /** The rollout goes on while somebody reads: an order for a step that is over must not hit the next. */
  recheck() {
    const { asked, rollout } = this;
    let why = "";
    if (!this.live) why = "No connection to the router: nothing can be ordered now.";
    else if (!this.possible.has(asked.verb) || this.moved(asked.given)) {
      why = `The rollout went on meanwhile (${rollout.phase}${rollout.step ? `, step ${rollout.step} of ${rollout.of}` : ""}). Cancel, and look again.`;
    }
    enable(byId("confirm-yes"), why === "");
    if (byId("confirm-error").textContent !== why && (why || byId("confirm-error").dataset.kind === "moved")) byId("confirm-error").textContent = why;
    byId("confirm-error").dataset.kind = why ? "moved" : byId("confirm-error").dataset.kind ?? "";
  }

  moved(given) {
    const { rollout } = this;
    const planNow = rollout.next?.plan ?? given.plan;
    return given.run !== rollout.run || (given.event ?? rollout.event) !== rollout.event || (given.plan ?? planNow) !== planNow;
  }

  async send() {
    const { verb, given } = this.asked ?? {};
    const yes = byId("confirm-yes");
    if (!verb || !usable(yes) || this.sending) return;
    const by = byId("confirm-by").value.trim();
    const body = { by, why: byId("confirm-why").value.trim(), force: byId("confirm-force").checked, if: given };
    if (verb === "abort") body.at_once = byId("confirm-at-once").checked;
    localStorage.setItem(OPERATOR, by);
    this.sending = true;
    enable(yes, false);
    const error = byId("confirm-error");
    error.dataset.kind = "answer";
    error.textContent = "";
    try {
      const answer = await ask(`/rollout/${verb}`, { body, timeoutMs: ORDER_TIMEOUT_MS });
      this.dialog.close();
      this.done(answer);
    } catch (problem) {
      if (problem instanceof Refused) {
        error.textContent = `Not done: ${problem.message}.`;
        byId("confirm-force-row").hidden = problem.title !== NEEDS_FORCE;
      }
      else if (problem instanceof Away) error.textContent = `${problem.message}. The order may have been carried out all the same: look at the events before you repeat it.`;
      else throw problem;
      enable(yes, true);
    } finally {
      this.sending = false;
    }
  }
}
