/* Workflows in a table: what of their limit is used, what waits, sleeps and is stuck, and a button to start one. */

import { el, keyed, setAttr, setText } from "../dom.js";
import { count } from "../format.js";
import { href } from "../router.js";
import { glyph, label } from "../status.js";
import { meter, setMeter } from "./meter.js";

/** The statuses that have a column of their own, beside what runs. */
const COLUMNS = ["pending", "sleeping", "waiting", "paused", "blocked", "failed", "completed"];

/** What stands in a column beside its own status. */
const BESIDES = { failed: ["timed_out"] };

export class WorkflowTable {
  #body = el("tbody");

  constructor({ onStart }) {
    this.onStart = onStart;
    const heads = [
      el("th", { scope: "col" }, "Workflow"),
      el("th", { scope: "col" }, "running"),
      ...COLUMNS.map((status) => el("th", { scope: "col", class: "number" }, label(status))),
      el("th", { scope: "col", class: "c-act" }, el("span", { class: "off-screen" }, "Actions")),
    ];
    this.node = el(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Workflows" },
      el("table", { class: "table workflows" }, el("thead", {}, el("tr", {}, heads)), this.#body),
    );
  }

  show(workflows) {
    this.node.hidden = workflows.length === 0;
    keyed(
      this.#body,
      workflows,
      (one) => one.name,
      (one) => this.#make(one),
      (node, one) => this.#update(node, one),
    );
  }

  #make(workflow) {
    const { name } = workflow;
    const title = el(
      "th",
      { scope: "row", class: "c-workflow" },
      el("a", { href: href(["workflows", name]) }, name),
      el("span", { class: "muted sub" }),
    );
    const cells = COLUMNS.map((status) =>
      el(
        "td",
        { class: "number", data: { label: label(status) } },
        el(
          "a",
          { href: href(["instances"], { workflow: name, status: [status, ...(BESIDES[status] ?? [])].join(",") }) },
          glyph(status),
          el("span"),
        ),
      ),
    );
    const start = el("button", { type: "button", class: "quiet small", "aria-label": `Start ${name}` }, "Start");
    const node = el(
      "tr",
      {},
      title,
      el(
        "td",
        { data: { label: "running" } },
        el("a", { href: href(["instances"], { workflow: name, status: "running" }), class: "meter-link" }, meter()),
      ),
      cells,
      el("td", { class: "c-act" }, start),
    );
    start.addEventListener("click", () => this.onStart(node.paddockWorkflow));
    return node;
  }

  #update(node, workflow) {
    node.paddockWorkflow = workflow;
    const { counts, limits } = workflow;
    const [title, running, ...cells] = node.children;
    setText(title.lastChild, about(workflow));
    setMeter(running.querySelector(".meter"), counts.running, limits?.max_concurrent ?? 0);
    setAttr(running.firstChild, "aria-label", `${counts.running} running`);
    setAttr(running.firstChild, "tabindex", counts.running ? null : "-1");
    setAttr(running.firstChild, "class", counts.running || limits?.max_concurrent ? "meter-link" : "meter-link none");
    COLUMNS.forEach((status, index) => {
      const link = cells[index].firstChild;
      const number = [status, ...(BESIDES[status] ?? [])].reduce((sum, one) => sum + (counts[one] ?? 0), 0);
      setText(link.lastChild, number ? count(number) : "·");
      setAttr(link, "class", number ? `is-${status}` : "none");
      setAttr(link, "aria-label", `${number} ${label(status)}`);
      setAttr(link, "tabindex", number ? null : "-1"); // nothing is there: no stop for who goes by keyboard
    });
    cells.at(-1).firstChild.hidden = !workflow.registered;
  }
}

function about(workflow) {
  if (!workflow.registered) return "not registered in this server: its instances are blocked";
  const words = [];
  const { limits } = workflow;
  if (limits?.rate) words.push(`${limits.rate.count} per ${limits.rate.seconds} s`);
  if (limits?.keyed) words.push("limit per key");
  if (limits?.on_limit === "reject") words.push("rejects at its limit");
  return words.join(" · ") || (workflow.description ?? "");
}
