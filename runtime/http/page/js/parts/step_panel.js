/* One step in full: what went in, what came out, each try, and why it failed. */

import { el, setChildren, whenChanged } from "../dom.js";
import { clock, duration, toMs } from "../format.js";
import { href } from "../router.js";
import { badge } from "../status.js";
import { errorView } from "./error_view.js";
import { jsonView } from "./json_view.js";

/** What outcomes mean that do not say it themselves. */
const OUTCOME = {
  retry: "it failed, and is tried again",
  crashed: "its process died",
  interrupted: "its server stopped; it went on in another process",
};

export class StepPanel {
  /** `load(of, key)` fetches a whole value; `onFork(key)` begins a fork from the step. */
  constructor({ load, onFork }) {
    this.load = load;
    this.onFork = onFork;
    this.node = el("section", { class: "card step-panel", "aria-label": "Step" });
  }

  show(step, { canFork }) {
    if (step === null) {
      whenChanged(this.node, "none", () =>
        el(
          "p",
          { class: "empty" },
          "Choose a step in the graph or the timeline to see what went in and what came out.",
        ),
      );
      return;
    }
    whenChanged(this.node, [step, canFork], () => this.#content(step, canFork));
  }

  #content(step, canFork) {
    const fork = canFork
      ? el(
          "button",
          { type: "button", class: "quiet small", on: { click: () => this.onFork(step.key) } },
          "Fork from here",
        )
      : null;
    return [
      el(
        "header",
        { class: "card-head" },
        el("h2", { class: "mono" }, step.key),
        badge(step.status),
        el("span", { class: "push" }),
        fork,
      ),
      el("p", { class: "muted facts" }, facts(step)),
      step.error ? errorView(step.error) : null,
      step.tries?.length > 1 ? triesTable(step.tries) : null,
      step.child_id
        ? el(
            "p",
            {},
            "Its instance: ",
            el("a", { href: href(["instances", step.child_id]), class: "mono" }, step.child_id),
          )
        : null,
      this.#value("Input", step.input, () => this.load("input", step.key)),
      this.#value("Output", step.output, () => this.load("output", step.key)),
    ];
  }

  #value(title, value, load) {
    if (value === null || value === undefined) return null;
    return [el("h3", { class: "minor" }, title), jsonView(value, { load, label: title.toLowerCase() })];
  }
}

function facts(step) {
  const from = toMs(step.started_at);
  const to = toMs(step.completed_at);
  const words = [step.kind.replaceAll("_", " ")];
  if (from !== null) words.push(`began ${clock(from)}`);
  if (from !== null && to !== null) words.push(`took ${duration(to - from)}`);
  if (step.attempts > 1) words.push(`${step.attempts} attempts`);
  if (step.poll_count) words.push(`${step.poll_count} checks`);
  if (step.loop_count) words.push(`jumped back ${step.loop_count}×`);
  if (step.status === "retrying" && step.wake_at) words.push(`next try ${clock(toMs(step.wake_at))}`);
  if (step.deadline_at && to === null) words.push(`until ${clock(toMs(step.deadline_at))} at the latest`);
  return words.join(" · ");
}

function triesTable(tries) {
  const rows = tries.map((one) => {
    const from = toMs(one.started_at);
    const to = toMs(one.ended_at);
    const error = one.error ? `${one.error.type}: ${one.error.message}` : "";
    return el(
      "tr",
      {},
      el("td", { data: { label: "try" } }, String(one.attempt)),
      el("td", { title: OUTCOME[one.outcome] }, one.outcome),
      el("td", { data: { label: "began" } }, from === null ? "–" : clock(from)),
      el("td", { data: { label: "took" } }, from === null || to === null ? "–" : duration(to - from)),
      el("td", { class: "wrap" }, error),
    );
  });
  const head = ["Try", "Outcome", "Began", "Took", "Error"].map((text) => el("th", { scope: "col" }, text));
  const node = el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Tries" });
  setChildren(node, el("table", { class: "table small cards" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
  return node;
}
