/* One workflow: what it is, its graph, its limits, its latest instances, and the form that starts one. */

import { startForm } from "../actions.js";
import { path } from "../api.js";
import { el, setText, whenChanged } from "../dom.js";
import { duration, plural } from "../format.js";
import { GraphView } from "../parts/graph_view.js";
import { InstanceTable } from "../parts/instance_table.js";
import { jsonView } from "../parts/json_view.js";
import { meter, setMeter } from "../parts/meter.js";
import { failed } from "../parts/toast.js";
import { Refresher } from "../refresh.js";
import { href } from "../router.js";
import { observed } from "../visits.js";

const STYLE = { graph: "step graph", flow: "flow", machine: "state class", action: "action" };

class WorkflowView {
  constructor(app, name) {
    this.app = app;
    this.name = name;
    this.title = name;
    this.facts = el("p", { class: "facts muted" });
    this.text = el("p");
    this.meter = meter();
    this.limits = el("span", { class: "muted" });
    this.graph = new GraphView({ name: `Graph of ${name}` });
    this.graphCard = el(
      "section",
      { class: "card graph-card", "aria-label": "Graph" },
      el("h2", {}, "Graph"),
      this.graph.node,
    );
    this.start = el("section", { class: "card", "aria-label": "Start" }, el("h2", {}, "Start an instance"));
    this.table = new InstanceTable({ now: () => app.api.now(), label: `Instances of ${name}` });
    this.empty = el("p", { class: "empty" }, "No instance yet.");
    this.schemas = el("details", { class: "card" }, el("summary", {}, "Schemas"), el("div", { class: "data-grid" }));
    this.keys = { j: () => this.table.move(1), k: () => this.table.move(-1) };
    this.node = el(
      "div",
      { class: "view" },
      el(
        "header",
        { class: "view-head" },
        el(
          "div",
          { class: "head-words" },
          el("h1", {}, name),
          this.text,
          this.facts,
          el("p", { class: "head-line" }, this.meter, this.limits),
        ),
      ),
      el("div", { class: "two" }, this.graphCard, this.start),
      el(
        "section",
        { class: "card", "aria-label": "Instances" },
        el(
          "header",
          { class: "card-head" },
          el("h2", {}, "Latest instances"),
          el("span", { class: "push" }),
          el("a", { href: href(["instances"], { workflow: name }) }, "All"),
        ),
        this.table.node,
        this.empty,
      ),
      this.schemas,
    );
    this.refresher = new Refresher(() => this.load().catch((error) => error.status && failed(error)), {
      gap: 1000,
      every: 5000,
    });
  }

  async ready() {
    await this.load();
    this.app.follow("events", {
      query: { pattern: "workflow.*", short: 1 },
      onEvents: (events) => events.some((one) => one.workflow_name === this.name) && this.refresher.poke(),
    });
    this.refresher.poke();
    return this;
  }

  async load() {
    const { api } = this.app;
    const [workflow, page] = await Promise.all([
      api.get(path("workflows", this.name)),
      api.get("instances", { workflow: this.name, limit: 20 }),
    ]);
    this.show(workflow);
    this.table.show(page.instances);
    this.table.node.hidden = page.instances.length === 0;
    this.empty.hidden = page.instances.length > 0;
  }

  show(workflow) {
    setText(this.text, workflow.description ?? "");
    this.text.hidden = !workflow.description;
    setText(this.facts, facts(workflow));
    setMeter(this.meter, workflow.counts.running, workflow.limits?.max_concurrent ?? 0);
    setText(this.limits, limits(workflow));
    const graph = workflow.graph;
    this.graphCard.hidden = !graph?.nodes.length;
    if (graph?.nodes.length) this.graph.show(graph.exact ? graph : observed([], graph.nodes));
    this.start.hidden = !workflow.registered;
    if (this.start.children.length < 2) this.start.append(startForm(this.app.api, workflow, null));
    whenChanged(this.schemas.lastChild, [workflow.input_schema, workflow.output_schema], () => [
      el("div", {}, el("h3", {}, "Input"), jsonView(workflow.input_schema, { label: "input schema" })),
      el("div", {}, el("h3", {}, "Output"), jsonView(workflow.output_schema, { label: "output schema" })),
    ]);
  }

  close() {
    this.refresher.stop();
  }
}

function facts(workflow) {
  if (!workflow.registered)
    return "Not registered in this server. Its instances are blocked until a server that knows it starts.";
  const words = [STYLE[workflow.style] ?? workflow.style];
  if (workflow.total_steps) words.push(plural(workflow.total_steps, "step"));
  words.push(workflow.isolated ? "a process for each instance" : "runs inside the server");
  if (workflow.timeout) words.push(`timeout ${duration(workflow.timeout * 1000)}`);
  if (workflow.tags?.length) words.push(workflow.tags.map((tag) => `#${tag}`).join(" "));
  return words.join(" · ");
}

function limits({ limits: found }) {
  if (!found) return "";
  const words = [found.max_concurrent ? `at once${found.keyed ? " for each key" : ""}` : "run, without a limit"];
  if (found.rate) words.push(`${found.rate.count} starts per ${duration(found.rate.seconds * 1000)}`);
  if (found.max_concurrent) words.push(found.on_limit === "reject" ? "more are rejected" : "more are queued");
  return words.join(" · ");
}

export async function open(app, { parts }) {
  return new WorkflowView(app, parts[1]).ready();
}
