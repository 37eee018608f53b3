/* The data of an instance: error, input, output, a machine's data, metadata, signals, children, kills. */

import { el, whenChanged } from "../dom.js";
import { clock, shortId, toMs } from "../format.js";
import { errorView } from "../parts/error_view.js";
import { jsonView } from "../parts/json_view.js";
import { showKills } from "../parts/kill_list.js";
import { href } from "../router.js";
import { badge } from "../status.js";

export class DataPanel {
  /** `load(of)` fetches a whole value: "input" or "output"; `onMetadata()` and `onState()` are asked for a change. */
  constructor(load, { onMetadata, onState }) {
    this.load = load;
    this.error = section("Error", { look: "card whole" });
    this.input = section("Input");
    this.output = section("Output");
    this.state = section("Data of the machine", { action: "Change data…", onAction: onState });
    this.metadata = section("Metadata", { action: "Set metadata…", onAction: onMetadata });
    this.signals = section("Signals");
    this.children = section("Child workflows");
    this.kills = section("Ended by the watchdog", { look: "card whole" });
    const all = [this.error, this.kills, this.input, this.output, this.state, this.metadata, this.signals, this.children];
    this.node = el(
      "div",
      { class: "data-grid" },
      all.map((one) => one.node),
    );
  }

  show(instance) {
    const above = instance.steps.some((step) => step.error && step.key === instance.error?.step);
    fill(this.error, instance.error, (error) => errorView(error, { open: !above }));
    fill(this.input, boxed(instance.input), ([value]) =>
      jsonView(value, { load: () => this.load("input"), label: "input" }),
    );
    fill(this.output, instance.status === "completed" ? [instance.output] : null, ([value]) =>
      jsonView(value, { load: () => this.load("output"), label: "output" }),
    );
    fill(this.state, filled(instance.state), (value) => jsonView(value, { label: "data of the machine" }));
    this.state.button.hidden = !instance.can.update_state;
    fill(this.metadata, instance.metadata, (value) =>
      filled(value) ? jsonView(value, { label: "metadata" }) : el("p", { class: "muted" }, "None."),
    );
    fill(this.signals, filled(instance.signals), signals);
    fill(this.children, filled(instance.children), children);
    fill(this.kills, filled(instance.kills), kills);
  }
}

function section(title, { look = "card", action = null, onAction = null } = {}) {
  const body = el("div");
  const button = action ? el("button", { type: "button", class: "quiet small" }, action) : null;
  button?.addEventListener("click", () => onAction(button));
  const head = button ? el("div", { class: "card-head" }, el("h2", {}, title), button) : el("h2", {}, title);
  return { body, button, node: el("section", { class: look, hidden: true }, head, body) };
}

function fill({ node, body }, value, make) {
  node.hidden = value === null;
  whenChanged(body, value, () => (value === null ? [] : make(value)));
}

const boxed = (value) => (value === null ? null : [value]);
const filled = (value) => (value && Object.keys(value).length ? value : null);

function signals(list) {
  return el(
    "ul",
    { class: "plain" },
    list.map((one) =>
      el(
        "li",
        {},
        el(
          "p",
          {},
          el("code", {}, one.name),
          ` ${clock(toMs(one.created_at))}`,
          el("span", { class: "muted" }, one.taken_by ? `, taken by ${one.taken_by}` : ", kept for its wait"),
        ),
        one.payload === null ? null : jsonView(one.payload, { label: `payload of ${one.name}` }),
      ),
    ),
  );
}

function children(list) {
  return el(
    "ul",
    { class: "plain" },
    list.map((one) =>
      el(
        "li",
        { class: "head-line" },
        badge(one.status),
        el("a", { href: href(["instances", one.id]), class: "mono", title: one.id }, shortId(one.id)),
        el("span", { class: "muted" }, one.workflow_name),
      ),
    ),
  );
}

function kills(list) {
  const node = el("ol", { class: "plain" });
  showKills(node, list, { named: false });
  return node;
}
