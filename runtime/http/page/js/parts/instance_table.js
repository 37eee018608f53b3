/* A table of instances. Rows are made once and changed in place; each is a link, so the browser's own ways of opening it work. */

import { el, keyed, setAttr, setText } from "../dom.js";
import { duration, shortId, toMs } from "../format.js";
import { glance } from "../explain.js";
import { href } from "../router.js";
import { badge, setBadge } from "../status.js";
import { setTime, timeNode } from "./live_time.js";

const TROUBLED = new Set(["failed", "timed_out", "blocked"]);

export class InstanceTable {
  #body = el("tbody");
  #rows = [];

  /** `selected` is a Set of ids, null without ticks; `act(row)` returns buttons for a row, or null. */
  constructor({ now, selected = null, onSelect = () => {}, act = null, label = "Instances" }) {
    this.now = now;
    this.selected = selected;
    this.onSelect = onSelect;
    this.act = act;
    const all = selected === null ? null : this.#allTick();
    const head = ["Status", "Workflow", "Instance", "Now", "Steps", "Created", "Took"];
    const cells = head.map((text, index) =>
      el(
        "th",
        { scope: "col", class: `c-${["status", "workflow", "id", "now", "steps", "created", "took"][index]}` },
        text,
      ),
    );
    this.table = el(
      "table",
      { class: "table instances", "aria-label": label },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          all,
          cells,
          act ? el("th", { scope: "col", class: "c-act" }, el("span", { class: "off-screen" }, "Actions")) : null,
        ),
      ),
      this.#body,
    );
    this.node = el("div", { class: "scroll" }, this.table);
  }

  /** Show rows. One that is shown no more is not chosen any more: nothing is done to what nobody sees. */
  show(rows) {
    this.#rows = rows;
    this.#forget(new Set(rows.map((row) => row.id)));
    keyed(
      this.#body,
      rows,
      (row) => row.id,
      (row) => this.#make(row),
      (node, row) => this.#update(node, row),
    );
    this.#tickAll();
  }

  #forget(shown) {
    for (const id of this.selected ?? []) if (!shown.has(id)) this.selected.delete(id);
  }

  /** Move the focus by a row: 1 down, -1 up. */
  move(step) {
    const links = [...this.#body.querySelectorAll("a.row-link")];
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + step))]?.focus();
  }

  #allTick() {
    this.all = el("input", { type: "checkbox", "aria-label": "All on this page" });
    this.all.addEventListener("change", () => {
      for (const row of this.#rows) this.all.checked ? this.selected.add(row.id) : this.selected.delete(row.id);
      for (const tick of this.#body.querySelectorAll("input.tick")) tick.checked = this.all.checked;
      this.onSelect();
    });
    return el("th", { scope: "col", class: "c-tick" }, this.all);
  }

  #tickAll() {
    if (this.all) this.all.checked = this.#rows.length > 0 && this.#rows.every((row) => this.selected.has(row.id));
  }

  #make(row) {
    const cells = {
      status: el("td", { class: "c-status" }, badge(row.status)),
      workflow: el("td", { class: "c-workflow" }, row.workflow_name),
      id: el(
        "td",
        { class: "c-id" },
        el("a", { class: "row-link mono", href: href(["instances", row.id]), title: row.id }, shortId(row.id)),
      ),
      now: el("td", { class: "c-now" }),
      steps: el("td", { class: "c-steps" }),
      created: el("td", { class: "c-created" }, timeNode(toMs(row.created_at))),
      took: el("td", { class: "c-took" }, timeNode(null, "since"), el("span")),
      act: this.act ? el("td", { class: "c-act" }) : null,
    };
    const node = el(
      "tr",
      {},
      this.selected === null ? null : el("td", { class: "c-tick" }, this.#tick(row)),
      Object.values(cells),
    );
    node.paddockCells = cells;
    node.addEventListener("click", (event) => {
      if (!event.target.closest("a, button, input, label") && !String(getSelection())) cells.id.firstChild.click();
    });
    return node;
  }

  #tick(row) {
    const tick = el("input", { type: "checkbox", class: "tick", "aria-label": `Choose ${shortId(row.id)}` });
    tick.checked = this.selected.has(row.id);
    tick.addEventListener("change", () => {
      tick.checked ? this.selected.add(row.id) : this.selected.delete(row.id);
      this.#tickAll();
      this.onSelect();
    });
    return tick;
  }

  #update(node, row) {
    const cells = node.paddockCells;
    const changed = node.dataset.status !== row.status;
    node.dataset.status = row.status;
    setBadge(cells.status.firstChild, row.status);
    const words = glance(row, this.now());
    setText(cells.now, words);
    setAttr(cells.now, "title", words || null);
    setAttr(cells.now, "class", `c-now${TROUBLED.has(row.status) ? " is-failed" : row.retrying ? " is-retrying" : ""}`);
    setText(
      cells.steps,
      row.total_steps && row.completed_steps <= row.total_steps
        ? `${row.completed_steps}/${row.total_steps}`
        : String(row.completed_steps),
    );
    const began = toMs(row.started_at);
    const ended = toMs(row.completed_at);
    const [live, fixed] = cells.took.children;
    live.hidden = began === null || ended !== null;
    if (!live.hidden) setTime(live, began);
    setText(fixed, began === null ? "–" : ended === null ? "" : duration(ended - began));
    if (changed && cells.act) cells.act.replaceChildren(...[this.act(row)].flat().filter(Boolean));
  }
}
