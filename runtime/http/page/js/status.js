/* The statuses: their words, and a shape for each, so that nothing depends on colour alone. */

import { el, setAttr, setText, svg } from "./dom.js";

/** Every status of an instance, in the order in which a person in a hurry wants them. */
export const STATUSES = [
  "running",
  "waiting",
  "blocked",
  "failed",
  "pending",
  "sleeping",
  "paused",
  "completed",
  "timed_out",
  "cancelled",
];

export const TERMINAL = new Set(["completed", "failed", "cancelled", "timed_out"]);

/** What each status means, for tooltips and empty lists. */
export const MEANING = {
  pending: "waits for a slot, or for its time",
  running: "has a process that works on it",
  sleeping: "no process until its time",
  waiting: "no process until a signal or another workflow's end",
  paused: "held by a person",
  blocked: "cannot go on with this code; keeps its journal",
  completed: "ended with an output",
  failed: "ended with an error; retry goes on from the failed step",
  cancelled: "ended by a person",
  timed_out: "ended by the workflow's deadline",
  retrying: "its last try failed; it is tried again",
  unvisited: "not reached",
};

/** The word that people read. */
export function label(status) {
  return status === "timed_out" ? "timed out" : status;
}

/* Paths in a box of 16 × 16. */
const SHAPES = {
  pending: [["circle", { cx: 8, cy: 8, r: 5.25, fill: "none", "stroke-dasharray": "2.6 2.2" }]],
  running: [["path", { d: "M4.5 2.8v10.4L13 8z", fill: "currentColor" }]],
  retrying: [["path", { d: "M12.8 5.2A5.4 5.4 0 1 0 13.4 8M13.2 2.2v3.2H10", fill: "none" }]],
  sleeping: [["path", { d: "M12.9 10.1A5.6 5.6 0 0 1 5.9 3.1a5.6 5.6 0 1 0 7 7z", fill: "currentColor" }]],
  waiting: [["path", { d: "M3.5 2.5h9M3.5 13.5h9M4.5 2.5c0 4 7 7 7 11M11.5 2.5c0 4-7 7-7 11", fill: "none" }]],
  paused: [["path", { d: "M5.5 3.2v9.6M10.5 3.2v9.6", fill: "none", "stroke-width": 2.4 }]],
  blocked: [
    ["path", { d: "M8 2.2 14.6 13.6H1.4z", fill: "none" }],
    ["path", { d: "M8 6.6v3.2M8 11.4v.6", fill: "none" }],
  ],
  completed: [["path", { d: "m3 8.6 3.3 3.5L13 4.4", fill: "none", "stroke-width": 2.2 }]],
  failed: [["path", { d: "m4 4 8 8M12 4l-8 8", fill: "none", "stroke-width": 2.2 }]],
  cancelled: [
    ["circle", { cx: 8, cy: 8, r: 5.25, fill: "none" }],
    ["path", { d: "m4.4 11.6 7.2-7.2", fill: "none" }],
  ],
  timed_out: [
    ["circle", { cx: 8, cy: 8, r: 5.6, fill: "none" }],
    ["path", { d: "M8 4.8V8l2.4 1.6", fill: "none" }],
  ],
  unvisited: [["circle", { cx: 8, cy: 8, r: 2, fill: "currentColor", stroke: "none" }]],
};

/** The parts of a status's shape, for a drawing of one's own. */
export function shapeParts(status) {
  return (SHAPES[status] ?? SHAPES.unvisited).map(([tag, props]) => svg(tag, props));
}

/** The shape as an icon; it says nothing to screen readers, the word beside it does. */
export function glyph(status) {
  return svg(
    "svg",
    {
      class: `glyph is-${status}`,
      viewBox: "0 0 16 16",
      "aria-hidden": "true",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 1.6,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
    },
    ...shapeParts(status),
  );
}

/** A badge: shape and word. */
export function badge(status) {
  const node = el("span", { class: "badge" });
  setBadge(node, status);
  return node;
}

/** Change a badge in place. */
export function setBadge(node, status) {
  if (node.dataset.status === status) return;
  node.dataset.status = status;
  setAttr(node, "class", `badge is-${status}`);
  setAttr(node, "title", MEANING[status] ?? status);
  const word = el("span");
  setText(word, label(status));
  node.replaceChildren(glyph(status), word);
}
