/* The events of an instance, as they were committed. Each opens to its data. */

import { el } from "../dom.js";
import { brief, fineClock, toMs } from "../format.js";
import { jsonView } from "./json_view.js";
import { attempt } from "./toast.js";

const PAGE = 200;
const MOST = 2000;

/** Names that repeat another event under a second name, or are shown elsewhere. */
function repeats(event) {
  return event.name.startsWith("log.") || (event.name.endsWith(".event") && event.name !== "workflow.event");
}

export class EventView {
  #list = el("ol", { class: "event-lines" });
  #more = el("button", { type: "button", class: "quiet small", hidden: true }, "More events");
  #empty = el("p", { class: "empty" }, "No event yet: the first one comes when a process begins.");
  #last = 0;
  #next = 0; // where the next page begins; null once all are read
  #waiting = null; // what the stream brings while a page is read

  /** `fetchPage(after, limit)` returns `{events, next}`. */
  constructor(fetchPage) {
    this.fetchPage = fetchPage;
    this.node = el("div", { class: "events" }, this.#list, this.#empty, this.#more);
    this.#more.addEventListener("click", () => attempt(this.#more, () => this.#page()));
    this.loaded = null;
  }

  load() {
    this.loaded ??= this.#page().catch((error) => {
      this.loaded = null; // who opens the tab again asks again
      throw error;
    });
    return this.loaded;
  }

  /** Add events from the stream; those that come while a page is read wait for it: its answer may be older than they are. */
  add(events) {
    if (this.#waiting !== null) this.#waiting.push(...events);
    else if (this.#next === null) this.#append(events); // otherwise the pages bring them
  }

  async #page() {
    const waiting = (this.#waiting = []);
    try {
      const page = await this.fetchPage(this.#last, PAGE);
      this.#next = page.next;
      this.#more.hidden = page.next === null;
      this.#append(page.events);
      if (page.next === null) this.#append(waiting);
    } finally {
      this.#waiting = null;
    }
  }

  #append(events) {
    for (const event of events) {
      if (event.id <= this.#last) continue;
      this.#last = event.id;
      if (!repeats(event)) this.#list.append(line(event));
    }
    while (this.#list.children.length > MOST) this.#list.firstChild.remove();
    this.#empty.hidden = this.#list.children.length > 0;
  }
}

function line(event) {
  const { instance_id: _instance, workflow_name: _name, ...data } = event.data;
  const fold = el("details", { class: "event-line" });
  const what = data.step ?? data.event ?? data.reason ?? "";
  fold.append(
    el(
      "summary",
      {},
      el("span", { class: "log-time" }, fineClock(toMs(event.created_at))),
      el("span", { class: `event-name ${tone(event.name)}` }, event.name.replace(/^workflow\./, "")),
      el("span", { class: "event-what mono" }, String(what)),
      el("span", { class: "event-brief muted" }, brief(rest(data), 160)),
      el("span", { class: "event-id muted" }, `#${event.id}`),
    ),
  );
  fold.addEventListener("toggle", () => fold.children.length > 1 || fold.append(jsonView(data, { label: "data" })), {
    once: true,
  });
  return el("li", {}, fold);
}

function rest({ step: _step, step_name: _name, step_type: _type, ...data }) {
  if (data.error) return `${data.error.type}: ${data.error.message}`;
  return Object.keys(data).length ? data : "";
}

function tone(name) {
  if (/failed|killed|stale|timed_out/.test(name)) return "is-failed";
  if (/retry/.test(name)) return "is-retrying";
  if (/completed/.test(name)) return "is-completed";
  if (/suspended|cancelled/.test(name)) return "is-waiting";
  return "is-pending";
}
