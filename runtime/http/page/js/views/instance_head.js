/* The head of an instance: status, name, id, facts, and the buttons for what can be done now. */

import { el, setAttr, setChildren, whenChanged } from "../dom.js";
import { duration, toMs } from "../format.js";
import { copyButton } from "../parts/copy.js";
import { timeNode } from "../parts/live_time.js";
import { href } from "../router.js";
import { badge, setBadge } from "../status.js";

/** Name, what `can` calls it, words, key, look. */
const BUTTONS = [
  ["retry", "retry", "Retry", "r", "primary"],
  ["unpause", "unpause", "Resume", "p", "primary"],
  ["pause", "pause", "Pause", "p", "quiet"],
  ["signal", "signal", "Signal…", "s", "quiet"],
  ["fork", "fork", "Fork…", "f", "quiet"],
  ["stacks", "stacks", "Stacks", "", "quiet"],
  ["cancel", "cancel", "Cancel", "c", "danger"],
  ["remove", "cleanup", "Delete", "", "danger"],
];

export class InstanceHead {
  #badge = badge("pending");
  #name = el("a");
  #id = el("span", { class: "mono id" });
  #facts = el("p", { class: "facts muted" });
  #buttons = new Map();

  /** `act(name, button)` is told which button was pressed. */
  constructor(act) {
    for (const [name, , words, key, look] of BUTTONS) {
      const button = el(
        "button",
        { type: "button", class: look, hidden: true, title: key ? `${words} (${key})` : words },
        words,
      );
      button.addEventListener("click", () => act(name, button));
      this.#buttons.set(name, button);
    }
    this.node = el(
      "header",
      { class: "view-head instance-head" },
      el(
        "div",
        { class: "head-words" },
        el("div", { class: "head-line" }, el("h1", {}, this.#name), this.#badge),
        el(
          "div",
          { class: "head-line" },
          this.#id,
          copyButton(() => this.#id.textContent, "Copy the id"),
        ),
        this.#facts,
      ),
      el("div", { class: "buttons", role: "group", "aria-label": "Actions" }, [...this.#buttons.values()]),
    );
  }

  show(instance) {
    setBadge(this.#badge, instance.status);
    whenChanged(this.#name, instance.workflow_name, () => [instance.workflow_name]);
    setAttr(this.#name, "href", href(["workflows", instance.workflow_name]));
    whenChanged(this.#id, instance.id, () => [instance.id]);
    const focused = document.activeElement;
    for (const [name, right] of BUTTONS) this.#buttons.get(name).hidden = !instance.can[right];
    const buttons = [...this.#buttons.values()];
    // who paused by keyboard wants to resume by keyboard
    if (focused?.hidden && buttons.includes(focused)) buttons.find((one) => !one.hidden)?.focus();
    const { created_at, started_at, completed_at, executions, pid, priority, parent, version, limit_key } = instance;
    if (
      whenChanged(
        this.#facts,
        [created_at, started_at, completed_at, executions, pid, priority, parent, version, limit_key],
        () => [],
      )
    ) {
      setChildren(this.#facts, join(facts(instance)));
    }
  }
}

function facts(instance) {
  const began = toMs(instance.started_at);
  const ended = toMs(instance.completed_at);
  const found = [["created ", timeNode(toMs(instance.created_at))]];
  if (began !== null) found.push(ended === null ? ["began ", timeNode(began)] : [`took ${duration(ended - began)}`]);
  if (instance.executions > 1) found.push([`${instance.executions} executions`]);
  if (instance.pid) found.push([`pid ${instance.pid}`]);
  if (instance.priority) found.push([`priority ${instance.priority}`]);
  if (instance.limit_key !== null) found.push(["key ", el("code", {}, instance.limit_key)]);
  if (instance.parent)
    found.push([
      "started by ",
      el("a", { href: href(["instances", instance.parent.id]) }, instance.parent.workflow_name),
    ]);
  return found;
}

function join(list) {
  return list.flatMap((one, index) => (index ? [" · ", one] : [one]));
}
