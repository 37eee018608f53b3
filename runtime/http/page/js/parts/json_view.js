/* A JSON value to read: short ones on a line, long ones folded; everything in it can be copied. */

import { el } from "../dom.js";
import { bytes, plural } from "../format.js";
import { copyButton } from "./copy.js";

const SHORT = 72;
const FIRST = 100;

/** Show a value. `load` fetches the whole of a value that came cut. */
export function jsonView(value, { load = null, label = "value" } = {}) {
  if (isCut(value)) return cut(value, load, label);
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const box = el("div", { class: "json", tabindex: "0", role: "group", "aria-label": label }, node(value, 0));
  return el(
    "div",
    { class: "json-frame" },
    box,
    copyButton(() => text ?? "null", `Copy ${label}`),
  );
}

function isCut(value) {
  return value !== null && typeof value === "object" && value.$truncated === true;
}

function cut(value, load, label) {
  const frame = el("div");
  const more = el("button", { type: "button", class: "quiet small" }, `Show all ${bytes(value.size)}`);
  more.addEventListener("click", async () => {
    more.disabled = true;
    frame.replaceChildren(jsonView(await load(), { label }));
  });
  frame.append(el("div", { class: "json", tabindex: "0", role: "group", "aria-label": label }, `${value.head}…`));
  if (load) frame.append(more);
  return frame;
}

function node(value, depth) {
  if (value === null) return el("span", { class: "j-null" }, "null");
  if (typeof value === "string") return string(value, depth);
  if (typeof value !== "object") return el("span", { class: `j-${typeof value}` }, String(value));
  const list = Array.isArray(value);
  const entries = list ? value.map((one, index) => [index, one]) : Object.entries(value);
  if (!entries.length) return el("span", { class: "j-mark" }, list ? "[]" : "{}");
  const text = JSON.stringify(value);
  if (depth > 0 && text.length <= SHORT && entries.every(([, one]) => one === null || typeof one !== "object"))
    return inline(entries, list);
  return folding(entries, list, depth, text.length);
}

function string(value, depth) {
  if (depth === 0 || value.includes("\n")) return el("span", { class: "j-text" }, value);
  return el("span", { class: "j-string" }, JSON.stringify(value));
}

function inline(entries, list) {
  const parts = entries.flatMap(([key, one], index) => [
    index ? el("span", { class: "j-mark" }, ", ") : null,
    list ? null : [el("span", { class: "j-key" }, key), el("span", { class: "j-mark" }, ": ")],
    node(one, 1),
  ]);
  return el(
    "span",
    {},
    el("span", { class: "j-mark" }, list ? "[" : "{"),
    parts,
    el("span", { class: "j-mark" }, list ? "]" : "}"),
  );
}

function folding(entries, list, depth, size) {
  const body = el("div", { class: "j-body" });
  const show = (from) => {
    for (const [key, one] of entries.slice(from, from + FIRST)) {
      const name = el("span", { class: list ? "j-index" : "j-key" }, String(key));
      body.append(el("div", { class: "j-entry" }, name, el("span", { class: "j-mark" }, ": "), node(one, depth + 1)));
    }
    if (entries.length <= from + FIRST) return;
    const more = el("button", { type: "button", class: "quiet small" }, `${entries.length - from - FIRST} more`);
    more.addEventListener("click", () => {
      more.remove();
      show(from + FIRST);
    });
    body.append(more);
  };
  if (depth === 0) {
    show(0);
    return body;
  }
  const fold = el(
    "details",
    { class: "j-fold" },
    el("summary", {}, plural(entries.length, list ? "item" : "field")),
    body,
  );
  const fill = () => body.firstChild ?? show(0);
  fold.addEventListener("toggle", fill);
  if (size < 1500 || depth < 2) {
    fold.open = true;
    fill();
  }
  return fold;
}
