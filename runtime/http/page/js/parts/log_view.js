/* The lines of an instance's log: the last ones, older ones on demand, new ones as they come. Follows the end while one is there. */

import { el, setText } from "../dom.js";
import { brief, fineClock, toMs } from "../format.js";
import { attempt } from "./toast.js";

const PAGE = 300;
const MOST = 3000;
const LEVELS = ["debug", "info", "warning", "error", "critical"];

export class LogView {
  #list = el("ol", { class: "log-lines" });
  #frame = el("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Log", "aria-live": "off" });
  #older = el("button", { type: "button", class: "quiet small", hidden: true }, "Older lines");
  #level = el(
    "select",
    { "aria-label": "Lowest level" },
    LEVELS.map((one) => el("option", { value: one }, one)),
  );
  #find = el("input", { type: "search", placeholder: "Filter lines", "aria-label": "Filter lines" });
  #empty = el(
    "p",
    { class: "empty", hidden: true },
    "Nothing was logged or printed. Handlers log with ctx.log(…), ctx.logger or print().",
  );
  #known = new Set();
  #before = null;
  #count = 0;
  #waiting = null; // what the stream brings while the last lines are read

  /** `fetchPage({tail, before, level})` returns `{logs, before}`. */
  constructor(fetchPage, { onCount = () => {} } = {}) {
    this.fetchPage = fetchPage;
    this.onCount = onCount;
    this.#level.value = "debug";
    this.#level.addEventListener("change", () => this.#filter());
    this.#find.addEventListener("input", () => this.#filter());
    this.#older.addEventListener("click", () => attempt(this.#older, () => this.#loadOlder()));
    this.#frame.append(this.#older, this.#list, this.#empty);
    this.node = el("div", {}, el("div", { class: "toolbar" }, this.#level, this.#find), this.#frame);
  }

  async load() {
    const waiting = (this.#waiting = []);
    try {
      const page = await this.fetchPage({ tail: PAGE });
      this.#before = page.before;
      this.#older.hidden = page.before === null;
      this.#append(page.logs);
    } finally {
      this.#waiting = null;
      this.#append(waiting);
    }
    this.#empty.hidden = this.#count > 0;
    this.toEnd();
  }

  /** Add new lines at the end; those that come while the last ones are read wait for them. */
  add(records) {
    if (this.#waiting === null) this.#append(records);
    else this.#waiting.push(...records);
  }

  #append(records) {
    const follow = this.#atEnd();
    const fresh = records.filter((one) => !this.#known.has(one.id));
    if (!fresh.length) return;
    for (const one of fresh) this.#known.add(one.id);
    this.#list.append(...fresh.map((one) => this.#line(one)));
    while (this.#list.children.length > MOST) this.#list.firstChild.remove();
    this.#counted(fresh.length);
    if (follow) this.toEnd();
  }

  toEnd() {
    this.#frame.scrollTop = this.#frame.scrollHeight;
  }

  #atEnd() {
    return this.#frame.scrollHeight - this.#frame.scrollTop - this.#frame.clientHeight < 40;
  }

  #counted(more) {
    this.#count += more;
    this.#empty.hidden = this.#count > 0;
    this.onCount(this.#count);
  }

  async #loadOlder() {
    const page = await this.fetchPage({ tail: PAGE, before: this.#before });
    this.#before = page.before;
    this.#older.hidden = page.before === null;
    const height = this.#frame.scrollHeight;
    const fresh = page.logs.filter((one) => !this.#known.has(one.id));
    for (const one of fresh) this.#known.add(one.id);
    this.#list.prepend(...fresh.map((one) => this.#line(one)));
    this.#frame.scrollTop += this.#frame.scrollHeight - height;
    this.#counted(fresh.length);
  }

  #line(record) {
    const data = Object.keys(record.data ?? {}).length ? brief(record.data, 400) : "";
    const where = [
      record.step_name,
      record.attempt > 1 ? `attempt ${record.attempt}` : null,
      record.source === "handler" ? null : record.source,
    ]
      .filter(Boolean)
      .join(", ");
    const node = el(
      "li",
      { class: `log-line level-${record.level}`, data: { level: record.level } },
      el("span", { class: "log-time" }, fineClock(toMs(record.created_at))),
      el("span", { class: "log-level" }, record.level),
      el("span", { class: "log-text" }, record.message, data ? el("span", { class: "log-data" }, ` ${data}`) : null),
      where ? el("span", { class: "log-where" }, where) : null,
    );
    this.#fit(node);
    return node;
  }

  #filter() {
    for (const node of this.#list.children) this.#fit(node);
    setText(
      this.#empty,
      this.#count
        ? "No line fits the filter."
        : "Nothing was logged or printed. Handlers log with ctx.log(…), ctx.logger or print().",
    );
    this.#empty.hidden = [...this.#list.children].some((node) => !node.hidden);
    this.toEnd();
  }

  #fit(node) {
    const low = LEVELS.indexOf(node.dataset.level) < LEVELS.indexOf(this.#level.value);
    const wanted = this.#find.value.toLowerCase();
    node.hidden = low || (wanted !== "" && !node.textContent.toLowerCase().includes(wanted));
  }
}
