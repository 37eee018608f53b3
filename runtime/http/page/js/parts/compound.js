/* Form fields made of fields: objects, lists, variants, and the switch that leaves one of them out. */

import { el, setText } from "../dom.js";
import { caption, classify, hint, resolve, variantName } from "../schema.js";
import { booleanField, choiceField, FieldProblem, jsonField, numberField, textField } from "./field.js";

const SIMPLE = {
  choice: choiceField,
  text: textField,
  number: numberField,
  integer: numberField,
  boolean: booleanField,
  json: jsonField,
};
const COMPOUND = { object: objectField, array: arrayField, variants: variantsField };

/** Make the field of a schema: `{name, required, path}` say where it stands. */
export function field(given, root, { name, required = true, path = "" }) {
  const { kind, schema, nullable, variants } = classify(given, root);
  const spec = { schema, root, name, required, nullable, path, variants };
  if (kind === "null")
    return { node: el("span"), read: () => null, write: () => {}, complain: () => {}, path, focus: null };
  let made;
  if (COMPOUND[kind])
    made = kind === "array" || (required && !nullable) ? COMPOUND[kind](spec) : optional(spec, COMPOUND[kind]);
  else made = SIMPLE[kind](spec);
  if (schema.default !== undefined && schema.default !== null) made.write(schema.default);
  return made;
}

function objectField(spec) {
  const { schema, root, name, path } = spec;
  const required = new Set(schema.required ?? []);
  const inner = Object.entries(schema.properties).map(([key, one]) => [
    key,
    field(one, root, { name: key, required: required.has(key), path: path ? `${path}.${key}` : key }),
  ]);
  const body = el(
    "div",
    { class: "fields" },
    inner.map(([, one]) => one.node),
  );
  const node =
    name === null
      ? body
      : el("fieldset", { class: "group" }, el("legend", {}, caption(schema, name)), note(schema), body);
  const read = () => {
    const value = {};
    for (const [key, one] of inner) {
      const found = one.read();
      if (found !== undefined) value[key] = found;
    }
    return value;
  };
  const write = (value) => {
    for (const [key, one] of inner) if (value && key in value) one.write(value[key]);
  };
  return {
    node,
    read,
    write,
    complain: () => {},
    path,
    focus: inner[0]?.[1].focus ?? null,
    inner: inner.map(([, one]) => one),
  };
}

function note(schema) {
  const words = hint(schema);
  return words ? el("p", { class: "hint" }, words) : null;
}

function arrayField(spec) {
  const { schema, root, name, path } = spec;
  const rows = [];
  const list = el("ol", { class: "items" });
  const complaint = el("p", { class: "complaint", hidden: true });
  const complain = (message) => {
    setText(complaint, message ?? "");
    complaint.hidden = !message;
  };
  const add = (value, focus) => {
    const made = field(schema.items, root, {
      name: `${name ?? "item"} ${rows.length + 1}`,
      path: `${path}.${rows.length}`,
    });
    const remove = el(
      "button",
      { type: "button", class: "quiet small", "aria-label": `Remove ${name ?? "item"} ${rows.length + 1}` },
      "Remove",
    );
    const row = el("li", { class: "item" }, made.node, remove);
    const entry = { made, row };
    remove.addEventListener("click", () => {
      rows.splice(rows.indexOf(entry), 1);
      row.remove();
      more.focus();
    });
    rows.push(entry);
    list.append(row);
    if (value !== undefined) made.write(value);
    if (focus) made.focus?.focus();
    complain(null);
  };
  const more = el(
    "button",
    { type: "button", class: "quiet small", on: { click: () => add(undefined, true) } },
    `Add ${name === null ? "an item" : `to ${name}`}`,
  );
  const title = el(
    "legend",
    {},
    name === null ? "Items" : caption(schema, name),
    spec.required ? null : el("span", { class: "optional" }, " optional"),
  );
  const node = el("fieldset", { class: "group" }, title, note(schema), list, complaint, more);
  for (let index = 0; spec.required && index < (schema.minItems ?? 0) && index < 20; index += 1) add();
  const read = () => {
    if (!rows.length && !spec.required) return undefined;
    if (!rows.length && spec.nullable) return null;
    const values = rows.map((row) => row.made.read()).map((value) => (value === undefined ? null : value));
    if (values.length < (schema.minItems ?? 0))
      throw new FieldProblem(`${name ?? "The list"} needs at least ${schema.minItems}.`, more);
    if (values.length > (schema.maxItems ?? Infinity))
      throw new FieldProblem(`${name ?? "The list"} takes at most ${schema.maxItems}.`, more);
    return values;
  };
  const write = (value) => {
    rows.splice(0);
    list.replaceChildren();
    for (const one of Array.isArray(value) ? value : []) add(one);
  };
  return {
    node,
    read,
    write,
    complain,
    path,
    focus: more,
    get inner() {
      return rows.map((row) => row.made);
    },
  };
}

function variantsField(spec) {
  const { schema, root, name, path, variants } = spec;
  let current = null;
  const body = el("div");
  const options = variants.map((one, index) =>
    el("option", { value: String(index) }, String(variantName(one, root, index))),
  );
  const choose = el("select", { "aria-label": `Kind of ${name ?? "value"}` }, options);
  const show = (index) => {
    current = field(variants[index], root, { name: name ?? "value", path });
    body.replaceChildren(current.node);
  };
  choose.addEventListener("change", () => show(Number(choose.value)));
  show(0);
  const node = el(
    "fieldset",
    { class: "group" },
    el("legend", {}, caption(schema, name ?? "value")),
    note(schema),
    choose,
    body,
  );
  const write = (value) => {
    const index = Math.max(
      0,
      variants.findIndex((one) => fits(resolve(one, root), value, root)),
    );
    choose.value = String(index);
    show(index);
    current.write(value);
  };
  return {
    node,
    read: () => current.read(),
    write,
    complain: (message) => current.complain(message),
    path,
    focus: choose,
    get inner() {
      return [current];
    },
  };
}

/* A rough look at whether a value belongs to a variant: its type, and the constants of its fields. */
function fits(schema, value, root) {
  const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  if (schema.type === "integer") return Number.isInteger(value);
  if (schema.type && schema.type !== type) return false;
  if (type !== "object" || !schema.properties) return true;
  return (
    Object.entries(schema.properties).every(([key, one]) => {
      const wanted = resolve(one, root);
      return !("const" in wanted) || value[key] === wanted.const;
    }) && (schema.required ?? []).every((key) => key in value)
  );
}

/* A compound field that may be left out: a tick brings it. It is made only then, so a schema that holds itself ends. */
function optional(spec, make) {
  const tick = el("input", { type: "checkbox" });
  const body = el("div", { hidden: true });
  let made = null;
  const show = (wanted) => {
    tick.checked = wanted;
    body.hidden = !wanted;
    if (wanted && made === null) {
      made = make({ ...spec, required: true });
      body.append(made.node);
    }
  };
  tick.addEventListener("change", () => show(tick.checked));
  const node = el(
    "div",
    { class: "optional-group" },
    el("label", { class: "radio" }, tick, el("span", {}, `give ${caption(spec.schema, spec.name)}`)),
    body,
  );
  const read = () => (tick.checked ? made.read() : spec.nullable && spec.required ? null : undefined);
  const write = (value) => {
    show(value !== undefined && value !== null);
    if (tick.checked) made.write(value);
  };
  return {
    node,
    read,
    write,
    complain: (message) => made?.complain(message),
    path: spec.path,
    focus: tick,
    get inner() {
      return made ? [made] : [];
    },
  };
}
