/* The timeline: a row for the processes, a row for each step, bars on one scale. Only styles and texts change as time goes on. */

import { el, keyed, setAttr, setText } from "../dom.js";
import { clock, coarse, duration, plural } from "../format.js";
import { timeline } from "../spans.js";
import { glyph, label } from "../status.js";
import { timescale } from "../timescale.js";
import { roving } from "./roving.js";

const MOST_ROWS = 150;
const HEAD = 24; // pixels of the axis, which stays in sight

export class TimelineView {
  #axis = el("div", { class: "tl-axis", "aria-hidden": "true" });
  #processes = el("div", { class: "tl-lane" });
  #rows = el("ol", { class: "tl-rows" });
  #settle = roving(this.#rows, "button");
  #more = el("button", { type: "button", class: "quiet small", hidden: true });
  #folds = el("div", { class: "tl-folds", "aria-hidden": "true" });
  #all = false;
  #width = 0;
  #instance = null;
  #selected = null;

  constructor({ onSelect, now }) {
    this.onSelect = onSelect;
    this.now = now;
    const first = el(
      "div",
      { class: "tl-row tl-processes" },
      el("span", { class: "tl-name" }, "processes"),
      this.#processes,
    );
    this.empty = el("p", { class: "empty", hidden: true }, "No step has begun yet.");
    this.node = el(
      "div",
      { class: "timeline" },
      (this.scroll = el(
        "div",
        { class: "tl-scroll" },
        el("div", { class: "tl-head" }, el("span", {}), this.#axis),
        el("div", { class: "tl-body" }, this.#folds, first, this.#rows),
      )),
      this.#more,
      this.empty,
    );
    // it is filled before it has a place, and a window may be turned; in a frame of its own, for what is drawn may change the layout
    new ResizeObserver(() => requestAnimationFrame(() => this.#fit())).observe(this.#axis);
    this.#more.addEventListener("click", () => {
      this.#all = true;
      this.show(this.#instance);
    });
  }

  show(instance) {
    this.#instance = instance;
    const time = timeline(instance, this.now());
    this.#width = this.#axis.clientWidth || 600;
    const scale = timescale(time.start, time.end, time.busy, this.#width);
    this.#drawAxis(scale, time);
    this.#drawProcesses(scale, time);
    const hidden = this.#all ? 0 : Math.max(0, time.rows.length - MOST_ROWS);
    keyed(
      this.#rows,
      time.rows.slice(hidden),
      (row) => row.key,
      () => this.#makeRow(),
      (node, row) => this.#updateRow(node, row, scale),
    );
    this.#settle();
    this.#more.hidden = hidden === 0;
    setText(this.#more, `Show ${plural(hidden, "earlier step")}`);
    this.empty.hidden = time.rows.length > 0;
  }

  /* Draw again where the width is another one, and not for a scroll bar that comes and goes. */
  #fit() {
    if (this.#instance && Math.abs(this.#axis.clientWidth - this.#width) > 20) this.show(this.#instance);
  }

  /** Let the open bars grow. */
  tick() {
    if (this.#instance && !this.#instance.completed_at) this.show(this.#instance);
  }

  select(key) {
    const moved = key !== this.#selected;
    this.#selected = key;
    for (const row of this.#rows.children) {
      const chosen = row.dataset.key === key;
      setAttr(row.firstChild, "aria-pressed", chosen ? "true" : "false");
      if (!chosen || !moved) continue;
      this.#settle(row.firstChild);
      this.#reveal(row);
    }
  }

  /* Of many rows not all are in sight; the page itself stays where it is. */
  #reveal(row) {
    requestAnimationFrame(() => {
      const [outer, inner] = [this.scroll.getBoundingClientRect(), row.getBoundingClientRect()];
      if (inner.bottom > outer.bottom) this.scroll.scrollTop += inner.bottom - outer.bottom;
      else if (inner.top < outer.top + HEAD) this.scroll.scrollTop -= outer.top + HEAD - inner.top;
    });
  }

  #drawAxis(scale, time) {
    const marks = scale.ticks.map((tick) => ({
      ...tick,
      text: tick.ms === time.start ? clock(tick.ms, this.now()) : `+${duration(tick.ms - time.start)}`,
    }));
    keyed(
      this.#axis,
      marks,
      (mark) => mark.ms,
      () => el("span", { class: "tl-tick" }),
      (node, mark) => {
        node.style.left = percent(mark.left);
        setText(node, mark.text);
      },
    );
    keyed(
      this.#folds,
      scale.folds,
      (fold) => fold.from,
      () => el("div", { class: "tl-fold" }, el("span")),
      (node, fold) => {
        node.style.left = percent(fold.left);
        node.style.width = percent(fold.width);
        setText(node.firstChild, coarse(fold.to - fold.from));
        setAttr(node, "title", `${coarse(fold.to - fold.from)} in which nothing happened`);
      },
    );
  }

  #drawProcesses(scale, time) {
    const items = [
      {
        key: "queue",
        from: time.start,
        to: time.queued,
        class: "tl-bar tl-wait tl-queue is-pending",
        title: `queued for ${duration(time.queued - time.start)}`,
      },
      ...time.runs.map((run, index) => ({
        key: `run ${index}`,
        from: run.from,
        to: run.to,
        class: `tl-bar tl-run${run.open ? " is-running" : run.why === "crash" || run.why === "killed" ? " is-failed" : ""}`,
        title: `pid ${run.pid ?? "–"}, ${duration(run.to - run.from)}${run.why ? `, ended: ${run.why}` : ""}`,
      })),
      ...time.kills.map((kill, index) => ({
        key: `kill ${index}`,
        from: kill.at,
        to: kill.at,
        class: "tl-kill is-failed",
        title: `ended by the watchdog: ${kill.reason}`,
      })),
    ];
    keyed(
      this.#processes,
      items,
      (item) => item.key,
      () => el("span"),
      (node, item) => place(node, item, scale),
    );
  }

  #makeRow() {
    const name = el(
      "button",
      { type: "button", class: "tl-name", "aria-pressed": "false" },
      el("span", { class: "tl-icon" }),
      el("span", { class: "tl-word" }),
      el("span", { class: "off-screen" }),
    );
    const row = el(
      "li",
      { class: "tl-row" },
      name,
      el("div", { class: "tl-lane", "aria-hidden": "true" }, el("div"), el("span", { class: "tl-label" })),
    );
    const choose = () => this.onSelect(row.dataset.key);
    name.addEventListener("click", choose);
    row.lastChild.addEventListener("click", choose);
    return row;
  }

  #updateRow(node, row, scale) {
    const [name, lane] = node.children;
    const [icon, word, words] = name.children;
    node.dataset.key = row.key;
    if (node.dataset.status !== row.status) {
      node.dataset.status = row.status;
      icon.replaceChildren(glyph(row.status));
    }
    word.style.paddingLeft = `${Math.min(row.depth, 6) * 10}px`;
    setText(word, row.key.split("/").at(-1));
    setAttr(name, "title", row.key);
    setAttr(name, "aria-pressed", row.key === this.#selected ? "true" : "false");
    const took = row.from === null ? "" : duration(row.to - row.from);
    setText(words, `, ${label(row.status)}, ${took}`);
    const bars = row.bars.map((bar, index) => ({
      ...bar,
      key: index,
      class: `tl-bar is-${bar.tone}${bar.waits ? " tl-wait" : ""}${bar.holds ? " tl-hold" : ""}`,
      title: `${row.key}: ${bar.text}${bar.text ? ", " : ""}${duration(bar.to - bar.from)}`,
    }));
    keyed(
      lane.firstChild,
      bars,
      (bar) => bar.key,
      () => el("span"),
      (bar, item) => place(bar, item, scale),
    );
    writeLength(lane.lastChild, row, took, scale, this.#width);
  }
}

const percent = (part) => `${(part * 100).toFixed(3)}%`;

function place(node, item, scale) {
  const left = scale.at(item.from);
  setAttr(node, "class", item.class);
  setAttr(node, "title", item.title);
  node.style.left = percent(left);
  node.style.width = percent(Math.max(0, scale.at(item.to) - left));
}

/* How long it took stands behind the bars, or before them where there is no room behind, or in the middle of what fills the line. */
function writeLength(node, row, took, scale, width) {
  setText(node, took);
  if (row.from === null) return;
  const [left, right] = [scale.at(row.from), scale.at(row.to)];
  const wide = Math.min(1, (12 + 6.5 * took.length) / width);
  const side = right + wide <= 1 ? "after" : left >= wide ? "before" : "within";
  const middle = Math.min(1 - wide / 2, Math.max(wide / 2, (left + right) / 2));
  node.dataset.side = side;
  node.style.left = side === "before" ? "auto" : percent(side === "after" ? right : middle);
  node.style.right = side === "before" ? percent(1 - left) : "auto";
}
