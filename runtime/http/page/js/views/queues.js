/* Queues and schedules: what waits for a slot and how long already, and what the clock will start. */

import { path } from "../api.js";
import { el, keyed, setAttr, setText } from "../dom.js";
import { count, duration, toMs } from "../format.js";
import { confirmed } from "../parts/dialog.js";
import { setTime, timeNode } from "../parts/live_time.js";
import { meter, setMeter } from "../parts/meter.js";
import { attempt, done, failed } from "../parts/toast.js";
import { Refresher } from "../refresh.js";
import { href } from "../router.js";
import { scheduleDialog } from "./schedule_form.js";

const head = (titles) =>
  el(
    "thead",
    {},
    el(
      "tr",
      {},
      titles.map((title) => el("th", { scope: "col" }, title || el("span", { class: "off-screen" }, "Actions"))),
    ),
  );

/* A cell that says what it is where there is no head above it, on a phone. */
const cell = (label, ...children) => el("td", { data: { label } }, children);

class QueuesView {
  title = "Queues and schedules";

  constructor(app) {
    this.app = app;
    this.queues = el("tbody");
    this.schedules = el("tbody");
    this.whole = meter();
    this.noQueues = el("p", { class: "empty" }, "Nothing waits for a slot.");
    this.noSchedules = el(
      "p",
      { class: "empty" },
      "No schedule. The clock can start workflows: press New schedule, or call ",
      el("code", {}, "server.workflows.schedule(…)"),
      ".",
    );
    const create = el(
      "button",
      { type: "button", class: "quiet", on: { click: () => scheduleDialog(app.api, () => this.refresher.poke()) } },
      "New schedule",
    );
    const scroll = (label, table) =>
      el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, table);
    this.queueTable = scroll(
      "Queues",
      el(
        "table",
        { class: "table cards" },
        head(["Workflow", "Running", "Waiting", "Delayed", "Oldest", "Rate"]),
        this.queues,
      ),
    );
    this.scheduleTable = scroll(
      "Schedules",
      el(
        "table",
        { class: "table cards" },
        head(["Schedule", "Workflow", "When", "Next", "Last", "Missed ticks", ""]),
        this.schedules,
      ),
    );
    this.node = el(
      "div",
      { class: "view" },
      el("header", { class: "view-head" }, el("h1", {}, "Queues and schedules")),
      el(
        "section",
        { class: "card", "aria-labelledby": "queues" },
        el(
          "header",
          { class: "card-head" },
          el("h2", { id: "queues" }, "Queues"),
          el("span", { class: "push" }),
          el("span", { class: "muted" }, "processes"),
          this.whole,
        ),
        this.queueTable,
        this.noQueues,
      ),
      el(
        "section",
        { class: "card", "aria-labelledby": "schedules" },
        el(
          "header",
          { class: "card-head" },
          el("h2", { id: "schedules" }, "Schedules"),
          el("span", { class: "push" }),
          create,
        ),
        this.scheduleTable,
        this.noSchedules,
      ),
    );
    this.refresher = new Refresher(() => this.load().catch((error) => error.status && failed(error)), {
      gap: 1000,
      every: 4000,
    });
  }

  async ready() {
    await this.load();
    this.app.follow("events", { query: { pattern: "workflow.*", short: 1 }, onEvents: () => this.refresher.poke() });
    this.refresher.poke();
    return this;
  }

  async load() {
    const [queues, { schedules }] = await Promise.all([this.app.api.get("queues"), this.app.api.get("schedules")]);
    setMeter(this.whole, queues.processes, queues.max_processes ?? 0);
    const busy = queues.queues.filter((one) => one.pending || one.running || one.delayed || one.limit);
    keyed(this.queues, busy, (one) => `${one.workflow_name} ${one.key}`, queueRow, updateQueue);
    this.queueTable.hidden = busy.length === 0;
    this.noQueues.hidden = busy.length > 0;
    keyed(
      this.schedules,
      schedules,
      (one) => one.id,
      (one) => this.#scheduleRow(one),
      updateSchedule,
    );
    this.scheduleTable.hidden = schedules.length === 0;
    this.noSchedules.hidden = schedules.length > 0;
  }

  #scheduleRow(schedule) {
    const remove = el(
      "button",
      { type: "button", class: "quiet small", "aria-label": `Delete schedule ${schedule.id}` },
      "Delete",
    );
    remove.addEventListener("click", async () => {
      if (!(await confirmed(`Delete schedule ${schedule.id}?`, "Instances that it has started go on.", "Delete it")))
        return;
      if (await attempt(remove, () => this.app.api.delete(path("schedules", schedule.id)))) {
        done("Deleted.");
        this.refresher.poke();
      }
    });
    const when = schedule.cron ? el("code", {}, schedule.cron) : `every ${duration(schedule.every * 1000)}`;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, schedule.id),
      cell("starts", el("a", { href: href(["workflows", schedule.workflow_name]) }, schedule.workflow_name)),
      cell("when", when, schedule.cron && schedule.tz !== "UTC" ? ` ${schedule.tz}` : ""),
      cell("next", timeNode(null)),
      cell("last"),
      cell("missed", { one: "one for all", all: "all of them", skip: "skipped" }[schedule.catch_up] ?? schedule.catch_up),
      el("td", { class: "c-act" }, remove),
    );
  }

  close() {
    this.refresher.stop();
  }
}

function queueRow(queue) {
  const key = queue.key === null ? null : el("span", { class: "muted" }, " key ", el("code", {}, queue.key));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("a", { href: href(["workflows", queue.workflow_name]) }, queue.workflow_name), key),
    cell("running", meter()),
    cell("waiting", el("a", { href: href(["instances"], { workflow: queue.workflow_name, status: "pending" }) })),
    cell("delayed"),
    cell("oldest", timeNode(null, "since")),
    cell("rate"),
  );
}

function updateQueue(node, queue) {
  const [, running, pending, delayed, oldest, rate] = node.children;
  setAttr(oldest, "data-none", queue.oldest_at === null);
  setAttr(rate, "data-none", !queue.rate);
  setMeter(running.firstChild, queue.running, queue.limit);
  setText(pending.firstChild, count(queue.pending));
  setText(delayed, count(queue.delayed));
  setTime(oldest.firstChild, toMs(queue.oldest_at));
  setText(rate, queue.rate ? `${queue.rate.count} per ${duration(queue.rate.seconds * 1000)}` : "–");
}

function updateSchedule(node, schedule) {
  setTime(node.children[3].firstChild, toMs(schedule.next_at));
  const last = node.children[4];
  if (last.dataset.id === String(schedule.last_instance_id)) return;
  last.dataset.id = String(schedule.last_instance_id);
  last.replaceChildren(
    schedule.last_instance_id
      ? el("a", { href: href(["instances", schedule.last_instance_id]) }, timeNode(toMs(schedule.last_at)))
      : "never",
  );
}

export async function open(app) {
  return new QueuesView(app).ready();
}
