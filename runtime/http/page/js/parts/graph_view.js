/*
 * A graph as SVG. Drawn once for a shape; what an instance does to it only changes classes and texts, so nothing flickers and the focus
 * stays where it is.
 */

import { el, setAttr, setText, svg } from "../dom.js";
import { layout } from "../graph_layout.js";
import { cutName, cutNote, labelOf, noteOf, SIZES } from "../graph_size.js";
import { label, shapeParts } from "../status.js";
import { taken } from "../visits.js";
import { roving } from "./roving.js";

const PAD = 14;

/** `onSelect(place)` is told which node was chosen; without it the drawing is only looked at. */
export class GraphView {
  #nodes = new Map();
  #edges = [];
  #mark = null;

  constructor({ onSelect = null, name = "Graph" } = {}) {
    this.onSelect = onSelect;
    this.name = name;
    this.node = el("div", { class: "graph", tabindex: onSelect ? null : "0", role: "region", "aria-label": name });
    this.settle = roving(this.node, ".step[role]");
  }

  /** Show a graph, and on it what was visited: `visits` as `visitsOf` gives them, `over` when the instance has completed. */
  show(graph, visits = new Map(), over = false) {
    const mark = JSON.stringify(graph);
    if (mark !== this.#mark) {
      this.#mark = mark;
      this.#draw(graph);
    }
    for (const [place, parts] of this.#nodes) this.#state(parts, visits.get(place));
    for (const { way, head, node, edge, place, scope } of this.#edges) {
      const lit = taken(node, edge, place, scope, visits, over);
      setAttr(way, "class", `way way-${edge.kind}${lit ? " lit" : ""}`);
      setAttr(way, "marker-end", `url(#${lit ? "tip-lit" : "tip"})`);
      if (head) setAttr(head, "class", lit ? "way-label lit" : "way-label");
    }
  }

  /** Mark a node as the selected one. */
  select(place) {
    for (const [one, parts] of this.#nodes) setAttr(parts.group, "aria-pressed", one === place ? "true" : "false");
    this.settle(this.#nodes.get(place)?.group);
  }

  #draw(graph) {
    this.#nodes.clear();
    this.#edges = [];
    const plan = layout(graph, SIZES);
    const width = plan.width + 2 * PAD;
    const height = plan.height + 2 * PAD;
    const picture = svg("svg", {
      class: "graph-picture",
      width,
      height,
      viewBox: `${-PAD} ${-PAD} ${width} ${height}`,
      role: "group",
      "aria-label": this.name,
    });
    picture.append(tips());
    this.#level(picture, plan, "");
    this.node.replaceChildren(picture);
    this.settle();
  }

  #level(parent, plan, scope) {
    const byName = new Map(plan.nodes.filter((one) => one.node).map((one) => [one.node.name, one]));
    for (const edge of plan.edges) this.#edge(parent, edge, byName.get(edge.from), scope);
    for (const one of plan.nodes) {
      if (one.node === null) parent.append(endMark(one));
      else this.#box(parent, one);
    }
  }

  #edge(parent, { edge, points, back }, from, scope) {
    const way = svg("path", { class: "way", d: back ? lane(points) : curve(points), fill: "none" });
    parent.append(way);
    const text = labelOf(edge);
    const head = text === null ? null : edgeLabel(edge, text, points, back);
    if (head) parent.append(head);
    this.#edges.push({ way, head, node: from.node, edge, place: from.path, scope });
  }

  #box(parent, one) {
    const { node, path, x, y, width, height, branches } = one;
    const active = this.onSelect !== null;
    const group = svg("g", { class: "step", transform: `translate(${x} ${y})` });
    if (active) {
      setAttr(group, "role", "button");
      setAttr(group, "tabindex", "-1");
      setAttr(group, "aria-pressed", "false");
      const choose = () => this.onSelect(path);
      group.addEventListener("click", (event) => {
        event.stopPropagation();
        choose();
      });
      group.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose();
      });
    }
    const icon = svg("g", {
      class: "step-icon",
      transform: "translate(12 15)",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 1.6,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
    });
    const name = svg("text", { class: "step-name", x: 36, y: 20 }, cutName(node.name, width));
    const note = svg("text", { class: "step-note", x: 36, y: 36 });
    const title = svg("title", {}, node.name);
    group.append(
      title,
      svg("rect", { class: "step-box", width, height, rx: node.kind === "choice" ? 22 : 8 }),
      icon,
      name,
      note,
    );
    parent.append(group);
    this.#nodes.set(path, { group, icon, note, title, node, width, status: null });
    for (const branch of branches) {
      const inner = svg(
        "g",
        { transform: `translate(${x + branch.x} ${y + branch.y})` },
        svg("text", { class: "branch-name", x: 0, y: -8 }, branch.name),
      );
      parent.append(inner);
      this.#level(inner, branch, `${path}/${branch.name}/`);
    }
  }

  #state(parts, visit) {
    const status = visit?.status ?? "unvisited";
    if (parts.status !== status) {
      parts.status = status;
      setAttr(parts.group, "class", `step is-${status}`);
      parts.icon.replaceChildren(...shapeParts(status));
    }
    const extra = visit ? counts(visit) : "";
    const text = extra || noteOf(parts.node);
    setText(parts.note, cutNote(text, parts.width - 42));
    const words = `${parts.node.name}: ${status === "unvisited" ? "not reached" : label(status)}${extra ? `, ${extra}` : ""}`;
    setText(parts.title, `${words} (${noteOf(parts.node)})`);
    if (this.onSelect) setAttr(parts.group, "aria-label", words);
  }
}

function counts(visit) {
  const words = [];
  if (visit.visits > 1) words.push(`${visit.visits} visits`);
  if (visit.loops) words.push(`jumped back ${visit.loops}×`);
  if (visit.polls) words.push(`${visit.polls} check${visit.polls === 1 ? "" : "s"}`);
  if (visit.attempts > 1 && !visit.polls)
    words.push(visit.status === "completed" ? `${visit.attempts} attempts` : `attempt ${visit.attempts}`);
  return words.join(", ");
}

function tips() {
  const tip = (id, kind) =>
    svg(
      "marker",
      {
        id,
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 8,
        markerHeight: 8,
        markerUnits: "userSpaceOnUse",
        orient: "auto-start-reverse",
      },
      svg("path", { class: kind, d: "M0 0.6 7.4 4 0 7.4z" }),
    );
  return svg("defs", {}, tip("tip", "tip"), tip("tip-lit", "tip lit"));
}

function endMark(one) {
  return svg(
    "g",
    { class: "end-mark", transform: `translate(${one.x} ${one.y})` },
    svg("rect", { width: one.width, height: one.height, rx: 10 }),
    svg("text", { x: one.width / 2, y: 14, "text-anchor": "middle" }, "end"),
  );
}

function curve(points) {
  let d = `M${points[0].join(" ")}`;
  for (let index = 1; index < points.length; index += 1) {
    const [x, y] = points[index];
    const [fromX, fromY] = points[index - 1];
    const middle = (fromY + y) / 2;
    d += x === fromX ? `L${x} ${y}` : `C${fromX} ${middle} ${x} ${middle} ${x} ${y}`;
  }
  return d;
}

function lane([leave, turn, back, arrive]) {
  const bend = 8;
  const up = back[1] < turn[1] ? -1 : 1;
  return `M${leave.join(" ")}H${turn[0] - bend}Q${turn[0]} ${turn[1]} ${turn[0]} ${turn[1] + up * bend}V${back[1] - up * bend}Q${back[0]} ${back[1]} ${back[0] - bend} ${back[1]}H${arrive[0]}`;
}

function edgeLabel(edge, text, points, back) {
  // where the ways have parted and not met again: at the end of a short one, at the first layer that a long one passes
  const [x, y] = back || points.length > 2 ? points[1] : points.at(-1);
  const down = back ? 14 : points.length > 2 ? (points[2][1] - points[1][1]) / 2 + 4 : -14;
  const node = svg(
    "text",
    { class: "way-label", x: back ? x - 4 : x, y: y + down, "text-anchor": back ? "end" : "middle" },
    text,
  );
  node.append(svg("title", {}, edge.label ?? text));
  return node;
}
