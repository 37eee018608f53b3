/* The machine: every process that runs for the server, with beats, memory and CPU; and what the watchdog has ended. */

import { el, keyed, setAttr, setText } from "../dom.js";
import { bytes, coarse, count, duration, shortId, toMs } from "../format.js";
import { showKills } from "../parts/kill_list.js";
import { timeNode } from "../parts/live_time.js";
import { failed } from "../parts/toast.js";
import { Refresher } from "../refresh.js";
import { href } from "../router.js";

const ROLE = { server: "server", watchdog: "watchdog", "fork-server": "fork server", child: "instance" };
const LATE = 5; // seconds without a beat that are worth a look

class MachineView {
  title = "Machine";
  #cpu = new Map();
  #before = null;
  #kills = [];

  constructor(app) {
    this.app = app;
    this.rows = el("tbody");
    this.facts = el("p", { class: "facts muted" });
    this.kills = el("ol", { class: "plain" });
    this.noKills = el(
      "p",
      { class: "empty" },
      "The watchdog has ended nothing. It ends what is stopped, silent without using CPU, or past its step's timeout; never what is busy.",
    );
    this.older = el(
      "button",
      { type: "button", class: "quiet small", hidden: true, on: { click: () => this.#older() } },
      "Older",
    );
    const heads = ["Process", "Pid", "Works on", "Memory", "CPU", "CPU time", "Last beat"].map((text, index) =>
      el("th", { scope: "col", class: index > 2 ? "number" : null }, text),
    );
    this.node = el(
      "div",
      { class: "view" },
      el("header", { class: "view-head" }, el("div", {}, el("h1", {}, "Machine"), this.facts)),
      el(
        "section",
        { class: "card", "aria-labelledby": "processes" },
        el("h2", { id: "processes" }, "Processes"),
        el(
          "div",
          { class: "scroll", tabindex: "0", role: "group", "aria-label": "Processes" },
          el("table", { class: "table cards" }, el("thead", {}, el("tr", {}, heads)), this.rows),
        ),
      ),
      el(
        "section",
        { class: "card", "aria-labelledby": "kills" },
        el("h2", { id: "kills" }, "Ended by the watchdog"),
        this.kills,
        this.noKills,
        this.older,
      ),
    );
    this.refresher = new Refresher(() => this.#load().catch((error) => error.status && failed(error)), {
      gap: 800,
      every: 2000,
    });
  }

  async ready() {
    await Promise.all([this.#load(), this.#loadKills()]);
    this.app.follow("events", {
      query: { pattern: "workflow.watchdog.*", short: 1 },
      onEvents: () => this.#loadKills(),
    });
    this.refresher.poke();
    return this;
  }

  async #load() {
    const [{ processes, limit }, overview] = await Promise.all([
      this.app.api.get("processes"),
      this.app.api.get("overview"),
    ]);
    const at = performance.now();
    keyed(
      this.rows,
      processes,
      (one) => one.pid,
      makeRow,
      (node, one) => updateRow(node, one, this.#percent(one, at)),
    );
    const children = processes.filter((one) => one.role === "child").length;
    setText(
      this.facts,
      [
        `Paddock ${overview.version}`,
        `up ${coarse(Math.max(0, this.app.api.now() - toMs(overview.started_at)))}`,
        `${count(children)} of ${limit || "any number of"} instance processes`,
        overview.database,
      ].join(" · "),
    );
  }

  /* How much of one core a process used between two looks. */
  #percent(process, at) {
    const last = this.#cpu.get(process.pid);
    this.#cpu.set(process.pid, { at, cpu: process.cpu });
    if (!last || at - last.at < 200) return last?.percent ?? null;
    const percent = Math.max(0, (100 * (process.cpu - last.cpu)) / ((at - last.at) / 1000));
    this.#cpu.get(process.pid).percent = percent;
    return percent;
  }

  async #loadKills() {
    const page = await this.app.api.get("kills", { limit: 20 });
    this.#merge(page.kills);
    this.#before ??= page.older;
    this.older.hidden = this.#before === null;
  }

  async #older() {
    const page = await this.app.api.get("kills", { limit: 20, before: this.#before }).catch(failed);
    if (!page) return;
    this.#before = page.older;
    this.older.hidden = page.older === null;
    this.#merge(page.kills);
  }

  #merge(kills) {
    const all = new Map([...this.#kills, ...kills].map((kill) => [kill.id, kill]));
    this.#kills = [...all.values()].sort((a, b) => b.id - a.id);
    showKills(this.kills, this.#kills);
    this.noKills.hidden = this.#kills.length > 0;
  }

  close() {
    this.refresher.stop();
  }
}

function makeRow(process) {
  const about = process.started_at
    ? [" ", el("span", { class: "muted" }, "since ", timeNode(toMs(process.started_at), "clock"))]
    : [];
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, ROLE[process.role] ?? process.role, about),
    el("td", { class: "mono", data: { label: "pid" } }, String(process.pid)),
    el("td", { data: { label: "works on" } }),
    ...["memory", "CPU", "CPU time", "last beat"].map((label) => el("td", { class: "number", data: { label } })),
  );
}

function updateRow(node, process, percent) {
  const [, , works, memory, cpu, time, beat] = node.children;
  setAttr(works, "data-none", !process.instance_id);
  setAttr(cpu, "data-none", percent === null);
  setAttr(beat, "data-none", process.last_beat === null);
  const mark = `${process.instance_id} ${process.step}`;
  if (works.dataset.mark !== mark) {
    works.dataset.mark = mark;
    works.replaceChildren(
      ...(process.instance_id
        ? [
            el(
              "a",
              { href: href(["instances", process.instance_id]), class: "mono", title: process.instance_id },
              shortId(process.instance_id),
            ),
            ` ${process.workflow_name ?? ""}`,
            el("span", { class: "muted" }, process.step ? ` in ${process.step}` : ""),
          ]
        : ["–"]),
    );
  }
  setText(memory, bytes(process.rss));
  setText(cpu, percent === null ? "–" : `${Math.round(percent)} %`);
  setText(time, duration(process.cpu * 1000));
  setText(beat, process.last_beat === null ? "–" : `${duration(process.last_beat * 1000)} ago`);
  setAttr(beat, "class", process.last_beat !== null && process.last_beat > LATE ? "number is-failed strong" : "number");
}

export async function open(app) {
  return new MachineView(app).ready();
}
