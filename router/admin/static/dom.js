// Elements made from text that nobody trusts: strings become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** An HTML element. Names and attributes are ours; only children may come from outside. */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/**
 * Whether a button can be used now. Not by `disabled`: that takes the focus away for good, so that a key pressed a moment
 * later goes nowhere. Its click handler asks `usable`.
 */
export const enable = (button, possible) => button.setAttribute("aria-disabled", String(!possible));

export const usable = (button) => button.getAttribute("aria-disabled") !== "true";

/** A word on a coloured ground, with a sign, so that the colour is never all that tells. */
export const badge = ([kind, sign, text]) =>
  h("span", { class: `badge ${kind}${text.length < 14 ? " short" : ""}` }, h("span", { "aria-hidden": "true" }, sign), " ", text);

const shown = new WeakMap();

/** Fill a place again, but only if its content has changed: focus, hover and a reader's place stay where they are. */
export function fill(place, facts, make) {
  const key = JSON.stringify(facts);
  if (shown.get(place) === key) return false;
  shown.set(place, key);
  place.replaceChildren(...[make()].flat().filter((child) => child !== null && child !== false));
  return true;
}
