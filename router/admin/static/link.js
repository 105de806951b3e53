// The way to the router: one bounded call at a time, slower while it is away, and never an old answer as a new one.

const TIMEOUT_MS = 5_000;
const EVERY_MS = 1_500;
const HIDDEN_EVERY_MS = 10_000;
const SLOWEST_MS = 10_000;
const TOKEN = "gc-admin-token";

/** The router answered, and said no. */
export class Refused extends Error {
  constructor(status, detail, title = "") {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

/** No answer came. */
export class Away extends Error {}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);

export async function ask(path, { body, timeoutMs = TIMEOUT_MS } = {}) {
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer, text;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(timeoutMs),
    });
    text = await answer.text();
  } catch (error) {
    throw new Away(error.name === "TimeoutError" ? `no answer within ${timeoutMs / 1000} s` : "the router cannot be reached");
  }
  let document_;
  try {
    document_ = JSON.parse(text);
  } catch {
    throw new Away(`an answer that is not the router's (status ${answer.status})`);
  }
  if (!answer.ok) throw new Refused(answer.status, document_.detail || document_.title || `status ${answer.status}`, document_.title);
  return document_;
}

/**
 * Calls `look` again and again: every 1.5 s, every 10 s while nobody sees the page, and ever more slowly (10 s at
 * most) while it fails. `look` returns whether it went well. `now()` looks at once.
 */
export function poll(look) {
  let failures = 0;
  let timer = null;
  let busy = false;
  let again = false;

  async function turn() {
    clearTimeout(timer);
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    again = false;
    let well = false;
    try {
      well = await look();
    } finally {
      busy = false;
      failures = well ? 0 : failures + 1;
      const usual = document.hidden ? HIDDEN_EVERY_MS : EVERY_MS;
      const slower = Math.min(SLOWEST_MS, 1_000 * 2 ** (failures - 1)) * (0.8 + 0.4 * Math.random());
      timer = setTimeout(turn, again ? 0 : failures ? slower : usual);
    }
  }

  document.addEventListener("visibilitychange", () => document.hidden || turn());
  window.addEventListener("online", turn);
  turn();
  return { now: turn };
}
