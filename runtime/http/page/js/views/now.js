/* The first view: what needs a person, what runs, and how each workflow stands. */

import { Actions } from "../actions.js";
import { path } from "../api.js";
import { el, keyed, setAttr, setText } from "../dom.js";
import { glance } from "../explain.js";
import { count, shortId, toMs } from "../format.js";
import { setTime, timeNode } from "../parts/live_time.js";
import { attempt, failed } from "../parts/toast.js";
import { WorkflowTable } from "../parts/workflow_table.js";
import { Refresher } from "../refresh.js";
import { href } from "../router.js";
import { badge, glyph, label, MEANING, setBadge, STATUSES } from "../status.js";
import { Needs } from "./needs.js";

const MOST = 12;

class NowView {
  title = "Now";
  #numbers = new Map();

  constructor(app) {
    this.app = app;
    this.actions = new Actions(app.api, () => this.#refresher.poke());
    this.needed = new Needs(app.api);
    this.needs = el("ol", { class: "rows" });
    this.runs = el("ol", { class: "rows" });
    this.calm = el("p", { class: "calm" }, glyph("completed"), "Nothing needs you.");
    this.idle = el("p", { class: "empty" }, "Nothing runs. Begin something with Start, below.");
    this.workflows = new WorkflowTable({ onStart: (workflow) => this.actions.start(workflow) });
    this.noWorkflows = el(
      "p",
      { class: "empty", hidden: true },
      "No workflow is registered. Call ",
      el("code", {}, "server.workflows.register(definition)"),
      ", or serve a module that does.",
    );
    this.node = el(
      "div",
      { class: "view" },
      el("h1", { class: "off-screen" }, "Now"),
      this.#strip(),
      el(
        "div",
        { class: "two" },
        el(
          "section",
          { class: "card", "aria-labelledby": "needs" },
          el("h2", { id: "needs" }, "Needs you"),
          this.calm,
          this.needs,
        ),
        el(
          "section",
          { class: "card", "aria-labelledby": "runs" },
          el("h2", { id: "runs" }, "Runs now"),
          this.idle,
          this.runs,
        ),
      ),
      el(
        "section",
        { class: "card", "aria-labelledby": "flows" },
        el("h2", { id: "flows" }, "Workflows"),
        this.workflows.node,
        this.noWorkflows,
      ),
    );
    this.keys = { j: () => this.#move(1), k: () => this.#move(-1) };
    this.#refresher = new Refresher(() => this.#load().catch((error) => error.status && failed(error)), {
      gap: 1200,
      every: 5000,
    });
  }

  #refresher;
  #inputs = new Map();

  #strip() {
    return el(
      "ul",
      { class: "strip", "aria-label": "Instances by status" },
      STATUSES.map((status) => {
        const number = el("span", { class: "strip-count" }, "0");
        this.#numbers.set(status, number);
        return el(
          "li",
          {},
          el(
            "a",
            { href: href(["instances"], { status }), class: `strip-item is-${status}`, title: MEANING[status] },
            number,
            el("span", { class: "strip-word" }, glyph(status), label(status)),
          ),
        );
      }),
    );
  }

  async ready() {
    await this.#load();
    this.app.follow("events", { query: { pattern: "workflow.*", short: 1 }, onEvents: () => this.#refresher.poke() });
    this.#refresher.poke();
    return this;
  }

  async #load() {
    const { api } = this.app;
    const [overview, { workflows }, { running, again, broken }] = await Promise.all([
      api.get("overview"),
      api.get("workflows"),
      api.get("now"),
    ]);
    const needs = await this.needed.load(broken);
    this.#inputs = new Map(workflows.map((one) => [one.name, one.input_schema]));
    this.#show(overview, workflows, needs, [...running, ...again].slice(0, MOST));
  }

  #show(overview, workflows, needs, running) {
    for (const [status, node] of this.#numbers) {
      const number = overview.counts[status] ?? 0;
      setText(node, count(number));
      setAttr(node.parentNode, "data-empty", number === 0);
    }
    this.calm.hidden = needs.length > 0;
    this.idle.hidden = running.length > 0;
    keyed(
      this.needs,
      needs,
      (row) => `${row.id} ${row.status}`,
      (row) => this.#row(row, true),
      (node, row) => this.#update(node, row),
    );
    keyed(
      this.runs,
      running,
      (row) => row.id,
      (row) => this.#row(row, false),
      (node, row) => this.#update(node, row),
    );
    const known = workflows.filter((one) => one.style !== "action" || Object.values(one.counts).some(Boolean));
    this.workflows.show(known);
    this.noWorkflows.hidden = known.length > 0;
  }

  #row(row, acts) {
    const words = el(
      "span",
      { class: "row-words" },
      el("span", { class: "row-name" }, el("span"), el("span", { class: "id mono" })),
      el("span", { class: "row-why" }),
    );
    const link = el(
      "a",
      { class: "row-link", href: href(["instances", row.id]) },
      badge(row.status),
      words,
      timeNode(null, "since"),
    );
    return el(
      "li",
      { class: "row" },
      link,
      acts ? el("span", { class: "row-act" }) : el("span", { class: "progress", "aria-hidden": "true" }, el("span")),
    );
  }

  #update(node, row) {
    const [link, side] = node.children;
    const [state, words, time] = link.children;
    setBadge(state, row.retrying ? "retrying" : row.status);
    const many = row.ids?.length > 1;
    const [name, id] = words.firstChild.children;
    setText(name, many ? `${row.ids.length} × ${row.workflow_name}` : row.workflow_name);
    setText(id, many ? "" : shortId(row.id));
    setAttr(
      link,
      "href",
      many ? href(["instances"], { workflow: row.workflow_name, status: row.status }) : href(["instances", row.id]),
    );
    const why = glance(row, this.app.api.now());
    setText(words.lastChild, why);
    setAttr(words.lastChild, "title", why || null);
    setTime(time, toMs(row.completed_at ?? row.started_at ?? row.created_at));
    if (side.className === "progress") {
      side.hidden = !row.total_steps;
      side.firstChild.style.width = `${Math.min(100, (100 * row.completed_steps) / (row.total_steps || 1))}%`;
      return;
    }
    const mark = `${row.status} ${row.ids} ${row.wait?.step}`;
    if (side.dataset.mark === mark) return;
    side.dataset.mark = mark;
    side.replaceChildren(this.#button(row));
  }

  #button(row) {
    const ids = row.ids ?? [row.id];
    const late = row.status === "timed_out"; // its deadline is over for good: only a new instance can do the work
    const verb = late ? "Fork" : "Retry";
    const words = row.status === "waiting" ? "Answer" : ids.length > 1 ? `${verb} all` : late ? "Fork…" : verb;
    const button = el(
      "button",
      {
        type: "button",
        class: row.wait ? "primary small" : "quiet small",
        "aria-label": `${words} ${row.workflow_name} ${shortId(row.id)}`,
      },
      words,
    );
    button.addEventListener("click", () => {
      if (row.wait) this.actions.signal(row.id, row.wait);
      else if (late) this.#fork(row, ids, button);
      else if (ids.length > 1) this.actions.bulk("retry", { ids }, ids.length, button);
      else this.actions.retry(row.id, button);
    });
    return button;
  }

  #fork(row, ids, button) {
    if (ids.length > 1) return this.actions.forkAll(ids, button);
    return attempt(button, async () => {
      const instance = await this.app.api.get(path("instances", row.id), { values: "short" });
      this.actions.fork(instance, null, this.#inputs.get(row.workflow_name) ?? null);
    });
  }

  #move(step) {
    const links = [...this.node.querySelectorAll(".rows a.row-link")];
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + step))]?.focus();
  }

  close() {
    this.#refresher.stop();
  }
}

export async function open(app) {
  return new NowView(app).ready();
}
