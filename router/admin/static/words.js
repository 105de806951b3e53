// Numbers and times in words, always with their units.

import { h } from "./dom.js";

export const NONE = "–";

/** What lifts the bar of a set whose rollout was aborted. */
export const READMIT = 'another build, another weight in the file, a start, or "End"';

/** Percent, with as many decimals as it needs: 0.01 %, 5 %, 12.5 %. */
export function percent(value, decimals = 2) {
  if (value === null || value === undefined) return NONE;
  return `${trim(value.toFixed(decimals))} %`;
}

/** Percent of a share of 1, to about two digits: a rate of errors. */
export function rate(share) {
  if (share === null || share === undefined) return NONE;
  const value = share * 100;
  return `${value === 0 ? "0" : value < 0.1 ? value.toFixed(3) : value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 10_000) return `${trim((value / 1000).toFixed(1))} s`;
  if (value >= 1000) return `${trim((value / 1000).toFixed(2))} s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

export const signed = (value, decimals) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(decimals)}`;

export const perSecond = (value) =>
  value === null || value === undefined ? NONE : `${value >= 100 ? value.toFixed(0) : trim(value.toFixed(1))}/s`;

/** A number with at most two decimals: 2, 0.25. */
export const amount = (value) => (value === null || value === undefined ? NONE : trim(value.toFixed(2)));

export const whole = (value) => (value === null || value === undefined ? NONE : value.toLocaleString("en"));

/** A number and its noun: 1 pause, 2 pauses. */
export const counted = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;

/** 5 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  if (all < 60) return `${all} s`;
  const parts = all < 3600 ? [[60, "min"], [1, "s"]] : all < 86400 ? [[3600, "h"], [60, "min"]] : [[86400, "d"], [3600, "h"]];
  let left = all;
  const words = [];
  for (const [size, unit] of parts) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) words.push(`${count} ${unit}`);
  }
  return words.join(" ");
}

const pad = (value) => String(value).padStart(2, "0");

export function clockTime(epochS) {
  const at = new Date(epochS * 1000);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

export function fullTime(epochS) {
  const at = new Date(epochS * 1000);
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${day} ${clockTime(epochS)} (${at.toISOString().slice(0, 19)}Z)`;
}

const trim = (digits) => (digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits);

// Relative times run on by themselves; the router's clock counts, not this machine's.

let aheadS = 0;

export function setClock(routerEpochS) {
  aheadS = routerEpochS - Date.now() / 1000;
}

export const routerNow = () => Date.now() / 1000 + aheadS;

/** "3 min ago", with the whole time on hover. */
export function ago(epochS) {
  const node = h("time", { datetime: new Date(epochS * 1000).toISOString(), title: fullTime(epochS), "data-at": epochS });
  tell(node, routerNow());
  return node;
}

function tell(node, now) {
  const passed = now - Number(node.dataset.at);
  const text = passed < 1 ? "now" : `${duration(passed)} ago`;
  if (node.textContent !== text) node.textContent = text;
}

export function runTimes() {
  const now = routerNow();
  for (const node of document.querySelectorAll("time[data-at]")) tell(node, now);
}
