/* Shortcuts. Single letters can be switched off, for those who speak to their computer. */

import { el } from "./dom.js";
import { openDialog } from "./parts/dialog.js";

const OFF = "paddock.keys";

/** Shortcuts that hold everywhere: key, what it does. `g` waits for a second key. */
export const EVERYWHERE = [
  ["g n", "Now"],
  ["g i", "Instances"],
  ["g w", "Workflows"],
  ["g q", "Queues and schedules"],
  ["g m", "Machine"],
  ["/", "Search"],
  ["t", "Light or dark"],
  ["?", "This list"],
];
export const ON_LISTS = [
  ["j", "Next row"],
  ["k", "Previous row"],
  ["Enter", "Open the row"],
];
export const ON_AN_INSTANCE = [
  ["s", "Signal, or answer its wait"],
  ["p", "Pause or resume"],
  ["r", "Retry"],
  ["f", "Fork"],
  ["c", "Cancel"],
  ["l", "Log"],
  ["e", "Events"],
  ["↑ ↓", "In the graph or the timeline: another step"],
];

export class Keys {
  #table = new Map();
  #view = new Map();
  #prefix = null;
  #forget = null;

  constructor() {
    addEventListener("keydown", (event) => this.#hear(event));
  }

  /** A shortcut that holds everywhere. */
  on(key, action) {
    this.#table.set(key, action);
  }

  /** The shortcuts of the view that is open now. */
  setView(table) {
    this.#view = new Map(Object.entries(table ?? {}));
  }

  get enabled() {
    return localStorage.getItem(OFF) !== "off";
  }

  #hear(event) {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      !this.enabled ||
      isTyping(event.target) ||
      document.querySelector("dialog[open]")
    )
      return;
    const key = this.#prefix ? `${this.#prefix} ${event.key}` : event.key;
    this.#prefix = null;
    clearTimeout(this.#forget);
    if (key === "g") {
      this.#prefix = "g";
      this.#forget = setTimeout(() => (this.#prefix = null), 1500);
      return;
    }
    const action = this.#view.get(key) ?? this.#table.get(key);
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** Show what there is. */
  help() {
    const tick = el("input", { type: "checkbox" });
    tick.checked = this.enabled;
    tick.addEventListener("change", () =>
      tick.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "off"),
    );
    return openDialog("Keys", () => [
      list("Everywhere", EVERYWHERE),
      list("In a table", ON_LISTS),
      list("On an instance", ON_AN_INSTANCE),
      el("label", { class: "radio" }, tick, el("span", {}, "Shortcuts are on")),
    ]);
  }
}

function list(title, entries) {
  const keysOf = (text) => text.split(" ").map((one) => el("kbd", {}, one));
  return [
    el("h3", {}, title),
    el(
      "dl",
      { class: "keys" },
      entries.map(([key, text]) => el("div", {}, el("dt", {}, keysOf(key)), el("dd", {}, text))),
    ),
  ];
}

function isTyping(node) {
  return (
    node instanceof HTMLElement &&
    (node.matches("input:not([type=checkbox]):not([type=radio]), textarea, select") || node.isContentEditable)
  );
}
