/* All instances: filters that the server applies, pages by cursor, live rows, and actions on many. Works the same with 50,000. */

import { Actions } from "../actions.js";
import { path } from "../api.js";
import { el, setAttr, setText } from "../dom.js";
import { count, plural } from "../format.js";
import { InstanceTable } from "../parts/instance_table.js";
import { failed } from "../parts/toast.js";
import { Refresher } from "../refresh.js";
import { go, href } from "../router.js";
import { glyph, label, MEANING, STATUSES } from "../status.js";

const LIMIT = 50;

class InstancesView {
  title = "Instances";
  #query;
  #shown = null; // the query whose answer is on the page
  #selected = new Set();
  #chips = new Map();
  #turn = 0;
  #typing = null;

  constructor(app, query) {
    this.app = app;
    this.#query = query;
    this.actions = new Actions(app.api, () => this.#refresher.poke());
    this.table = new InstanceTable({
      now: () => app.api.now(),
      selected: this.#selected,
      onSelect: () => this.#showBulk(),
    });
    this.keys = { j: () => this.table.move(1), k: () => this.table.move(-1) };
    this.#build();
    this.#refresher = new Refresher(() => this.#load().catch((error) => this.#unless(error)), {
      gap: 1000,
      every: 5000,
    });
    this.#follow();
  }

  #refresher;

  #build() {
    this.workflow = el("select", { "aria-label": "Workflow" }, el("option", { value: "" }, "all workflows"));
    this.workflow.addEventListener("change", () => this.#filter({ workflow: this.workflow.value }));
    this.find = el("input", { type: "search", placeholder: "Id, error, metadata", "aria-label": "Find in instances" });
    this.find.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#filter({}), 250);
    });
    this.parent = el("span", { class: "filter-note", hidden: true });
    const chips = STATUSES.map((status) => this.#chip(status));
    this.empty = el("div", { class: "empty card", hidden: true });
    this.newer = el(
      "button",
      { type: "button", class: "quiet", on: { click: () => this.#page({ after: this.cursors.newer }) } },
      "← Newer",
    );
    this.older = el(
      "button",
      { type: "button", class: "quiet", on: { click: () => this.#page({ before: this.cursors.older }) } },
      "Older →",
    );
    this.newest = el("a", { class: "quiet button", hidden: true }, "Newest");
    this.pages = el("nav", { class: "pages", "aria-label": "Pages" }, this.newer, this.newest, this.older);
    this.bulk = el("div", { class: "bulk", hidden: true });
    this.node = el(
      "div",
      { class: "view" },
      el("header", { class: "view-head" }, el("h1", {}, "Instances")),
      el("div", { class: "chips", role: "group", "aria-label": "Status" }, chips),
      el("div", { class: "toolbar" }, this.workflow, this.find, this.parent, this.bulk),
      this.table.node,
      this.empty,
      this.pages,
    );
  }

  #chip(status) {
    const number = el("span", { class: "chip-count" }, "0");
    const button = el(
      "button",
      { type: "button", class: `chip is-${status}`, "aria-pressed": "false", title: MEANING[status] },
      glyph(status),
      el("span", {}, label(status)),
      number,
    );
    button.addEventListener("click", () => {
      const wanted = new Set(this.#statuses());
      wanted.has(status) ? wanted.delete(status) : wanted.add(status);
      this.#filter({ status: [...wanted].join(",") });
    });
    this.#chips.set(status, { button, number });
    return button;
  }

  #statuses() {
    return (this.#query.status ?? "").split(",").filter(Boolean);
  }

  /* A change of a filter begins at the newest again, and takes along what was typed a moment before. */
  #filter(change) {
    const { before: _before, after: _after, ...kept } = this.#query;
    if (this.#typing !== null) kept.q = this.find.value.trim();
    go(href(["instances"], { ...kept, ...change }), { replace: true });
  }

  #page(cursor) {
    const { before: _before, after: _after, ...kept } = this.#query;
    go(href(["instances"], { ...kept, ...cursor }));
  }

  async update({ query }) {
    this.#query = query;
    this.#forgetTyping(); // it is in the address, or the person went elsewhere
    this.#selected.clear();
    this.#hold();
    await this.#load().catch((error) => this.#unless(error));
  }

  get #stale() {
    return this.#shown !== this.#query;
  }

  /* What another filter has left cannot be chosen, nor paged on from, until the answer to this one is there. */
  #hold() {
    for (const node of [this.table.node, this.pages]) node.inert = this.#stale;
    this.#showBulk();
  }

  #unless(error) {
    if (error.status) failed(error); // that the server is away is shown elsewhere
  }

  async #load() {
    this.#turn += 1;
    const turn = this.#turn;
    const query = this.#query;
    const { workflow, status, q, parent, before, after } = query;
    const [page, overview, workflows, one] = await Promise.all([
      this.app.api.get("instances", { workflow, status, q, parent, before, after, limit: LIMIT }),
      this.app.api.get("overview"),
      this.names ?? this.app.api.get("workflows"),
      workflow ? this.app.api.get(path("workflows", workflow)).catch(() => null) : null,
    ]);
    if (turn !== this.#turn) return; // another filter was chosen meanwhile
    this.names = workflows;
    this.cursors = page;
    this.counts = workflow ? (one?.counts ?? {}) : overview.counts;
    this.#shown = query;
    this.#show(page, workflows.workflows);
  }

  #show(page, workflows) {
    const { workflow = "", q = "", parent = "" } = this.#query;
    if (this.workflow.options.length !== workflows.length + 1) {
      this.workflow.replaceChildren(
        el("option", { value: "" }, "all workflows"),
        ...workflows.map((one) => el("option", { value: one.name }, one.name)),
      );
    }
    this.workflow.value = workflow;
    if (document.activeElement !== this.find) this.find.value = q;
    this.parent.hidden = parent === "";
    this.parent.replaceChildren(
      "started by ",
      parent,
      el("button", { type: "button", class: "quiet small", on: { click: () => this.#filter({ parent: "" }) } }, "all"),
    );
    const chosen = new Set(this.#statuses());
    for (const [status, { button, number }] of this.#chips) {
      setAttr(button, "aria-pressed", chosen.has(status) ? "true" : "false");
      setText(number, count(this.counts[status] ?? 0));
    }
    this.table.show(page.instances);
    this.table.node.hidden = page.instances.length === 0;
    this.#showPages(page);
    this.#showEmpty(page);
    this.#hold();
  }

  #showPages(page) {
    this.newer.disabled = page.newer === null || !(this.#query.before || this.#query.after);
    this.older.disabled = page.older === null;
    const { before: _before, after: _after, ...kept } = this.#query;
    this.newest.hidden = this.newer.disabled;
    this.pages.hidden = this.newer.disabled && this.older.disabled;
    this.newest.href = href(["instances"], kept);
  }

  #showEmpty(page) {
    this.empty.hidden = page.instances.length > 0;
    if (!this.empty.hidden && this.empty.dataset.mark !== location.hash) {
      this.empty.dataset.mark = location.hash;
      const filtered = ["workflow", "status", "q", "parent", "before", "after"].some((name) => this.#query[name]);
      this.empty.replaceChildren(
        ...(filtered
          ? [
              el("p", {}, "No instance fits these filters."),
              el("a", { class: "button", href: "#/instances" }, "Show all"),
            ]
          : [el("p", {}, "No instance yet."), el("a", { class: "button primary", href: "#/workflows" }, "Start one")]),
      );
    }
  }

  #showBulk() {
    const ids = [...this.#selected];
    const only = this.#statuses();
    const { workflow = null, q, parent } = this.#query;
    const button = (text, run) => {
      const made = el("button", { type: "button", class: "quiet small" }, text);
      made.addEventListener("click", async () => {
        if (await run(made)) this.#selected.clear();
        this.#showBulk();
      });
      return made;
    };
    let buttons = [];
    if (ids.length) {
      buttons = [
        el("span", {}, `${count(ids.length)} chosen`),
        ...["retry", "cancel", "cleanup"].map((action) =>
          button({ retry: "Retry", cancel: "Cancel", cleanup: "Delete" }[action], (made) =>
            this.actions.bulk(action, { ids }, ids.length, made),
          ),
        ),
      ];
    } else if (!this.#stale && only.length === 1 && only[0] === "failed" && !q && !parent) {
      const number = this.counts?.failed;
      if (number)
        buttons = [
          button(`Retry all ${plural(number, "failed one", "failed ones")}`, (made) =>
            this.actions.bulk("retry", { workflow, status: "failed" }, number, made),
          ),
        ];
    }
    const mark = JSON.stringify([ids, buttons.length, buttons.at(-1)?.textContent]);
    if (this.bulk.dataset.mark === mark) return;
    this.bulk.dataset.mark = mark;
    this.bulk.hidden = buttons.length === 0;
    this.bulk.replaceChildren(...buttons);
  }

  #follow() {
    this.app.follow("events", { query: { pattern: "workflow.*", short: 1 }, onEvents: () => this.#refresher.poke() });
  }

  async ready() {
    await this.#load();
    this.#refresher.poke();
    return this;
  }

  #forgetTyping() {
    clearTimeout(this.#typing);
    this.#typing = null;
  }

  close() {
    this.#forgetTyping(); // who leaves while typing is not brought back
    this.#refresher.stop();
  }
}

export async function open(app, { query }) {
  const view = new InstancesView(app, query);
  return view.ready();
}
