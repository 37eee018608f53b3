/*
 * One instance: why it stands where it stands, its graph, its timeline, the chosen step, its data, log and events, and what can be done.
 *
 * The stream of its events is the sign to read it again; the log and the list of events are fed by the stream itself.
 */

import { Actions } from "../actions.js";
import { path } from "../api.js";
import { el } from "../dom.js";
import { editMetadata, editState } from "../edits.js";
import { showExplanation } from "../parts/explanation.js";
import { signalOf } from "../explain.js";
import { EventView } from "../parts/event_view.js";
import { GraphView } from "../parts/graph_view.js";
import { LogView } from "../parts/log_view.js";
import { showStacks } from "../parts/stacks_dialog.js";
import { StepPanel } from "../parts/step_panel.js";
import { tabs } from "../parts/tabs.js";
import { TimelineView } from "../parts/timeline_view.js";
import { attempt, failed } from "../parts/toast.js";
import { Refresher } from "../refresh.js";
import { go } from "../router.js";
import { TERMINAL } from "../status.js";
import { observed, placeOf, visitsOf } from "../visits.js";
import { DataPanel } from "./instance_data.js";
import { InstanceHead } from "./instance_head.js";

class InstanceView {
  #id;
  #workflow = null;
  #instance = null;
  #selected = null;
  #byHand = false;
  #progress = null;
  #timer;

  constructor(app, id) {
    this.app = app;
    this.#id = id;
    const { api } = app;
    this.actions = new Actions(api, () => this.#refresher.poke());
    this.head = new InstanceHead((name, button) => this.#act(name, button));
    this.why = el("div", { class: "why" });
    this.graph = new GraphView({ name: "Graph of the workflow", onSelect: (place) => this.#choosePlace(place) });
    this.timeline = new TimelineView({ now: () => api.now(), onSelect: (key) => this.#choose(key) });
    this.step = new StepPanel({ load: (of, step) => this.#payload(of, step), onFork: (key) => this.#fork(key) });
    this.data = new DataPanel((of) => this.#payload(of), {
      onMetadata: () => editMetadata(api, id, this.#instance.metadata, () => this.#refresher.poke()),
      onState: (button) => attempt(button, () => editState(api, id, () => this.#refresher.poke())),
    });
    this.log = new LogView((query) => api.get(path("instances", id, "logs"), { level: "debug", ...query }), {
      onCount: (count) => this.tabs.mark("log", String(count)),
    });
    this.events = new EventView((after, limit) =>
      api.get(path("instances", id, "events"), { after, limit, pattern: "workflow.*", short: 1 }),
    );
    this.#build();
    this.keys = {
      s: () => this.#act("signal"),
      p: () => this.#act(this.#instance.can.unpause ? "unpause" : "pause"),
      r: () => this.#act("retry"),
      f: () => this.#act("fork"),
      c: () => this.#act("cancel"),
      l: () => this.tabs.show("log", { focus: true }),
      e: () => this.tabs.show("events", { focus: true }),
    };
    this.#refresher = new Refresher(() => this.#load().catch((error) => this.#unless(error)), {
      gap: 300,
      every: 15_000,
    });
    this.#timer = setInterval(() => document.hidden || this.#tick(), 1000);
  }

  #refresher;

  #build() {
    this.tabs = tabs(
      [
        { name: "data", title: "Data", panel: this.data.node },
        { name: "log", title: "Log", panel: this.log.node },
        { name: "events", title: "Events", panel: this.events.node },
      ],
      { label: "More of this instance", onChange: (name) => this.#opened(name) },
    );
    this.node = el(
      "div",
      { class: "view instance" },
      this.head.node,
      this.why,
      el(
        "div",
        { class: "instance-main" },
        el("section", { class: "card graph-card", "aria-label": "Graph" }, this.graph.node),
        el(
          "div",
          { class: "instance-side" },
          el("section", { class: "card", "aria-label": "Timeline" }, this.timeline.node),
          this.step.node,
        ),
      ),
      this.tabs.node,
    );
  }

  #opened(name) {
    if (name === "events") this.events.load().catch((error) => this.#unless(error));
    if (name === "log") this.log.toEnd();
  }

  async ready() {
    await this.#load();
    this.tabs.show("data");
    this.app.follow(path("instances", this.#id, "events"), {
      query: { short: 1 },
      after: this.#instance.last_event_id,
      onEvents: (events) => this.#heard(events),
    });
    this.log.load().catch((error) => this.#unless(error));
    return this;
  }

  #heard(events) {
    const lines = events.filter((event) => event.name === "log.workflow");
    if (lines.length)
      this.log.add(lines.map((event) => ({ ...event.data, id: event.id, created_at: event.created_at })));
    const news = events.findLast((event) => event.name === "workflow.progress" && "step_progress" in event.data);
    if (news) this.#progress = { step: news.data.current_step, value: news.data.step_progress };
    this.events.add(events);
    if (events.some((event) => !event.name.startsWith("log."))) this.#refresher.poke();
  }

  async #load() {
    const instance = await this.app.api.get(path("instances", this.#id), { values: "short" });
    this.#workflow ??= await this.app.api
      .get(path("workflows", instance.workflow_name))
      .catch(() => ({ graph: null, input_schema: null }));
    this.#instance = settled(instance);
    this.#show();
  }

  #unless(error) {
    if (!this.app.shown()) return; // who has left already is not brought back
    if (error.status === 404) go("#/instances");
    if (error.status) failed(error);
  }

  #show() {
    const instance = this.#instance;
    this.head.show(instance);
    this.title = `${instance.status} · ${instance.workflow_name}`;
    this.app.setTitle("instances", this.title);
    this.data.show(instance);
    this.#showGraph(instance);
    this.timeline.show(instance);
    this.#chooseByItself(instance);
    this.#showStep();
    this.#tick();
  }

  #showGraph(instance) {
    const outline = this.#workflow.graph;
    const exact = outline?.exact === true;
    const graph = exact ? outline : observed(instance.steps, outline?.nodes);
    if (!graph.nodes.length) return;
    this.graph.show(graph, visitsOf(instance.steps), instance.status === "completed");
  }

  /* The step that matters, until the person chooses one: the one that failed, or the one it is at. */
  #chooseByItself(instance) {
    if (this.#byHand) return;
    const wanted = instance.error?.step ?? instance.current_step ?? instance.steps.at(-1)?.key ?? null;
    const step =
      instance.steps.find((one) => one.key === wanted) ?? instance.steps.findLast((one) => one.step_name === wanted);
    this.#selected = step?.key ?? instance.steps.at(-1)?.key ?? null;
  }

  #showStep() {
    const step = this.#instance.steps.find((one) => one.key === this.#selected) ?? null;
    this.step.show(step, { canFork: this.#instance.can.fork });
    this.timeline.select(this.#selected);
    this.graph.select(this.#selected === null ? null : placeOf(this.#selected));
  }

  #choose(key) {
    this.#byHand = true;
    this.#selected = key;
    this.#showStep();
  }

  #choosePlace(place) {
    const step = this.#instance.steps.findLast((one) => placeOf(one.key) === place);
    if (step) this.#choose(step.key);
  }

  #tick() {
    if (this.#instance === null) return;
    const instance = { ...this.#instance, progress: this.#progress };
    showExplanation(this.why, instance, this.app.api.now(), (wait) => this.actions.signal(this.#id, wait));
    this.timeline.tick();
  }

  async #payload(of, step) {
    return this.app.api.get(path("instances", this.#id, "payload"), { of, step });
  }

  #fork(key) {
    return this.actions.fork(this.#instance, key, this.#workflow.input_schema);
  }

  async #act(name, button = null) {
    const { can } = this.#instance;
    if (!can[name === "remove" ? "cleanup" : name]) return;
    if (name === "signal") await this.actions.signal(this.#id, signalOf(this.#instance.waits_for));
    else if (name === "fork") await this.#fork(null);
    else if (name === "remove") await this.#remove(button);
    else if (name === "stacks") await showStacks(this.app.api, this.#id, button);
    else await this.actions[name](this.#id, button);
  }

  async #remove(button) {
    const removed = await this.actions.remove(this.#id, button, (last) => this.#refresher.before(last));
    if (removed) go("#/instances");
  }

  close() {
    clearInterval(this.#timer);
    this.#refresher.stop();
  }
}

/* Who died or was ended leaves steps open in its journal; for a reader they ended with it. */
function settled(instance) {
  if (!TERMINAL.has(instance.status)) return instance;
  const status = instance.status === "cancelled" ? "cancelled" : "failed";
  const ended_at = instance.completed_at;
  const steps = instance.steps.map((step) => {
    if (step.status === "completed" || step.status === "failed") return step;
    const outcome = status === "cancelled" ? "cancelled" : "crashed";
    const tries = step.tries.map((one) => (one.outcome === "running" ? { ...one, outcome, ended_at } : one));
    return { ...step, status, tries, completed_at: ended_at };
  });
  return { ...instance, steps };
}

export async function open(app, { parts }) {
  return new InstanceView(app, parts[1]).ready();
}
