/* A form made from a JSON schema, with raw JSON as the other way, and the server's complaints at their fields. */

import { el, setText } from "../dom.js";
import { isAny } from "../schema.js";
import { field } from "./compound.js";
import { FieldProblem, jsonField } from "./field.js";

/**
 * Make a form: `{node, focus(), write(value)}`. `onSubmit(value)` is async; what it raises is shown.
 *
 * `schema` null or {} means any JSON: only the raw field is there. `value` fills it in. `extra` are nodes above the buttons.
 */
export function schemaForm(schema, { submit, onSubmit, onCancel, value, extra = [], tone = "primary" }) {
  const form = el("form", { class: "form", novalidate: true });
  const ways = new Ways(schema, value);
  const problem = el("div", { class: "form-problem", role: "alert" });
  const send = el("button", { type: "submit", class: tone }, submit);
  const buttons = [
    send,
    onCancel ? el("button", { type: "button", class: "quiet", on: { click: onCancel } }, "Close") : null,
    ways.toggle,
  ];
  form.append(ways.node, ...extra, problem, el("div", { class: "form-buttons" }, buttons));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    setText(problem, "");
    send.disabled = true;
    try {
      await onSubmit(ways.read());
    } catch (error) {
      ways.show(error, problem);
    } finally {
      send.disabled = false;
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return { node: form, focus: () => ways.focus(), write: (value) => ways.write(value) };
}

/* The two ways to give a value: by fields or as JSON. What was given one way is carried to the other. */
class Ways {
  constructor(schema, value) {
    this.raw = jsonField({ schema: {}, name: "value", required: true, path: "", rows: 8 });
    this.any = isAny(schema);
    this.byFields = !this.any;
    this.fields = this.any
      ? null
      : field(schema, schema, { name: schema.type === "object" || schema.$ref ? null : "value", required: true });
    if (value !== undefined) this.write(value);
    this.node = el("div", { class: "ways" }, this.any ? this.raw.node : this.fields.node);
    this.toggle = this.any
      ? null
      : el("button", { type: "button", class: "quiet push", on: { click: () => this.#turn() } }, "As JSON");
  }

  write(value) {
    this.raw.write(value);
    if (value !== null) this.fields?.write(value);
  }

  read() {
    return this.byFields ? (this.fields.read() ?? null) : this.raw.read();
  }

  focus() {
    (this.byFields ? this.fields.focus : this.raw.focus)?.focus();
  }

  #turn() {
    const from = this.byFields ? this.fields : this.raw;
    const to = this.byFields ? this.raw : this.fields;
    try {
      const value = from.read();
      if (value !== undefined && value !== null) to.write(value);
    } catch (error) {
      if (!(error instanceof FieldProblem)) throw error; // half-filled is no reason to stay
    }
    this.byFields = !this.byFields;
    this.node.replaceChildren(to.node);
    setText(this.toggle, this.byFields ? "As JSON" : "As form");
    this.focus();
  }

  /* Put a complaint where it belongs: at its field where that is known, else under the form. */
  show(error, place) {
    if (error instanceof FieldProblem) {
      const owner = this.#all().find((one) => one.focus === error.node || one.node.contains(error.node));
      owner?.complain(error.message);
      setText(place, owner ? "" : error.message);
      error.node.focus();
      return;
    }
    const rest = [];
    for (const { where, message } of error.fields ?? []) {
      const path = String(where)
        .replace(/^body\./, "")
        .replace(/^(input|payload)\.?/, "");
      const owner = this.byFields && path ? this.#all().find((one) => one.path === path) : null;
      if (owner) owner.complain(message);
      else rest.push(path ? `${path}: ${message}` : message);
    }
    place.replaceChildren(el("p", {}, error.message), ...rest.map((line) => el("p", {}, line)));
  }

  /* Every field, innermost first. */
  #all() {
    if (!this.byFields) return [this.raw];
    const walk = (one) => [...(one.inner ?? []).flatMap(walk), one];
    return walk(this.fields);
  }
}
