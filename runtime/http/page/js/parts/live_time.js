/* Times that go on: one timer for all of them, which changes nothing but texts, and only those that differ. */

import { el, setText } from "../dom.js";
import { clock, coarse, fullTime, relative } from "../format.js";

let now = () => Date.now();

/** Take the server's clock. */
export function useClock(source) {
  now = source;
}

function word(ms, mode) {
  if (mode === "ago") return relative(ms, now());
  if (mode === "since") return coarse(Math.max(0, now() - ms));
  return clock(ms, now());
}

/** A `<time>`: mode "ago" ("3 s ago", "in 5 min"), "since" ("3 s") or "clock" ("14:05:09"). Null gives a dash. */
export function timeNode(ms, mode = "ago") {
  const node = el("time", { data: { mode } });
  setTime(node, ms);
  return node;
}

/** Change a time in place. */
export function setTime(node, ms) {
  if (ms === null || ms === undefined) {
    delete node.dataset.ms;
    node.removeAttribute("datetime");
    node.removeAttribute("title");
    setText(node, "–");
    return;
  }
  if (node.dataset.ms !== String(ms)) {
    node.dataset.ms = String(ms);
    node.setAttribute("datetime", new Date(ms).toISOString());
    node.title = fullTime(ms);
  }
  setText(node, word(ms, node.dataset.mode));
}

setInterval(() => {
  if (document.hidden) return;
  for (const node of document.querySelectorAll("time[data-ms]")) {
    if (node.dataset.mode !== "clock") setText(node, word(Number(node.dataset.ms), node.dataset.mode));
  }
}, 1000);
