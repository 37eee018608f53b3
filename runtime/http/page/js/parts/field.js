/* Form fields for simple schemas: choices, texts, numbers, yes or no, raw JSON. Compound ones are in `compound.js`. */

import { el, setAttr, setText, uniqueId } from "../dom.js";
import { caption, constraints, hint } from "../schema.js";

/** A value that the form cannot send; `node` is where the person is needed. */
export class FieldProblem extends Error {
  constructor(message, node) {
    super(message);
    this.node = node;
  }
}

/* Every field: `node`; `read()` returns the value, undefined for "left out"; `write(value)`; `complain(message)`; `path`. */
function framed(control, { schema, name, required, path }, read, write, focus = control) {
  const words = hint(schema);
  const hintId = uniqueId("hint");
  const complaintId = uniqueId("complaint");
  const complaint = el("p", { class: "complaint", id: complaintId, hidden: true });
  setAttr(focus, "aria-describedby", words ? `${hintId} ${complaintId}` : complaintId);
  const id = focus.id || (focus.id = uniqueId("field"));
  const title = el(
    "label",
    { for: id },
    caption(schema, name),
    required ? null : el("span", { class: "optional" }, " optional"),
  );
  const node = el(
    "div",
    { class: "field" },
    title,
    control,
    words ? el("p", { class: "hint", id: hintId }, words) : null,
    complaint,
  );
  const complain = (message) => {
    setText(complaint, message ?? "");
    complaint.hidden = !message;
    setAttr(focus, "aria-invalid", message ? "true" : null);
  };
  focus.addEventListener("input", () => complain(null));
  return { node, read, write, complain, path, focus };
}

/** Left out or null, as the schema has it, where a field is empty. */
function nothing({ required, nullable }) {
  return required && nullable ? null : undefined;
}

const INPUT_TYPES = {
  email: "email",
  uri: "url",
  date: "date",
  "date-time": "datetime-local",
  time: "time",
  password: "password",
};
const LONG = /text|comment|note|body|message|description|reason|prompt|content/i;

export function textField(spec) {
  const { schema, name, required } = spec;
  const type = INPUT_TYPES[schema.format] ?? "text";
  const long = type === "text" && (schema.maxLength === undefined || schema.maxLength > 120) && LONG.test(name);
  const limits = type === "text" ? constraints(schema) : {};
  const control = long
    ? el("textarea", { rows: 3, ...limits })
    : el("input", {
        type,
        autocomplete: "off",
        ...limits,
        pattern: safePattern(schema.pattern),
        step: type === "datetime-local" ? 1 : null,
      });
  setAttr(control, "aria-required", required ? "true" : null);
  // an empty text is a text where one is required; where not, it is left out
  const read = () => {
    const value = control.value;
    if (value === "" && (!required || spec.nullable)) return nothing(spec);
    if (value === "" && (type !== "text" || schema.minLength > 0))
      throw new FieldProblem(`${name} is needed.`, control);
    if (!control.checkValidity()) throw new FieldProblem(control.validationMessage, control);
    return type === "datetime-local" ? new Date(value).toISOString() : value;
  };
  const write = (value) => (control.value = type === "datetime-local" ? localTime(value) : (value ?? ""));
  return framed(control, spec, read, write);
}

/* A pattern of JSON schema may hit anywhere; that of an input must match the whole. */
function safePattern(pattern) {
  if (!pattern) return null;
  const whole = `${pattern.startsWith("^") ? "" : ".*"}${pattern.replace(/^\^/, "").replace(/\$$/, "")}${pattern.endsWith("$") ? "" : ".*"}`;
  try {
    RegExp(whole, "v");
    return whole;
  } catch {
    return null; // not in this browser's dialect: the server checks it
  }
}

function localTime(value) {
  const at = new Date(value ?? "");
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

export function numberField(spec) {
  const { schema, name, required } = spec;
  const whole = schema.type === "integer";
  const step = schema.multipleOf ?? (whole ? 1 : "any");
  const control = el("input", {
    type: "number",
    inputmode: whole ? "numeric" : "decimal",
    ...constraints(schema),
    step,
  });
  setAttr(control, "aria-required", required ? "true" : null);
  const read = () => {
    if (control.value === "" && !control.validity.badInput) {
      if (!required || spec.nullable) return nothing(spec);
      throw new FieldProblem(`${name} is needed.`, control);
    }
    if (!control.checkValidity()) throw new FieldProblem(control.validationMessage, control);
    return Number(control.value);
  };
  return framed(control, spec, read, (value) => (control.value = value ?? ""));
}

export function booleanField(spec) {
  if (spec.nullable || (!spec.required && spec.schema.default === undefined)) {
    return choiceField({
      ...spec,
      schema: { ...spec.schema, enum: [true, false] },
      words: { true: "yes", false: "no" },
    });
  }
  const control = el("input", { type: "checkbox", id: uniqueId("field") });
  const field = framed(
    control,
    { ...spec, required: true },
    () => control.checked,
    (value) => (control.checked = value === true),
  );
  field.node.classList.add("field-check");
  field.node.prepend(control);
  return field;
}

const FEW = 4;

export function choiceField(spec) {
  const { schema, required, nullable, words = {} } = spec;
  const options = schema.enum.filter((one) => one !== null);
  const free = !required || nullable || schema.enum.includes(null);
  return options.length <= FEW && !free ? radios(spec, options, words) : select(spec, options, words, free);
}

function word(value, words) {
  return words[String(value)] ?? (typeof value === "string" ? value : JSON.stringify(value));
}

function select(spec, options, words, free) {
  const control = el("select", {}, el("option", { value: "" }, free ? "–" : "choose…"));
  options.forEach((value, index) => control.append(el("option", { value: String(index) }, word(value, words))));
  const read = () => {
    if (control.value !== "") return options[Number(control.value)];
    if (!free) throw new FieldProblem(`Choose one for ${spec.name}.`, control);
    return spec.required ? null : undefined;
  };
  const write = (value) => {
    const index = options.findIndex((one) => JSON.stringify(one) === JSON.stringify(value));
    control.value = index < 0 ? "" : String(index);
  };
  return framed(control, spec, read, write);
}

function radios(spec, options, words) {
  const group = uniqueId("choice");
  const inputs = options.map((_, index) => el("input", { type: "radio", name: group, value: String(index) }));
  const labels = inputs.map((input, index) =>
    el("label", { class: "radio" }, input, el("span", {}, word(options[index], words))),
  );
  const complaint = el("p", { class: "complaint", hidden: true });
  const words_ = hint(spec.schema);
  const node = el(
    "fieldset",
    { class: "field field-radios" },
    el("legend", {}, caption(spec.schema, spec.name)),
    el("div", { class: "radios" }, labels),
    words_ ? el("p", { class: "hint" }, words_) : null,
    complaint,
  );
  const complain = (message) => {
    setText(complaint, message ?? "");
    complaint.hidden = !message;
  };
  if (options.length === 1) inputs[0].checked = true;
  const read = () => {
    const index = inputs.findIndex((input) => input.checked);
    if (index < 0) throw new FieldProblem(`Choose one for ${spec.name}.`, inputs[0]);
    return options[index];
  };
  const write = (value) =>
    inputs.forEach((input, index) => (input.checked = JSON.stringify(options[index]) === JSON.stringify(value)));
  node.addEventListener("change", () => complain(null));
  return { node, read, write, complain, path: spec.path, focus: inputs[0] };
}

/** Raw JSON, for what no form can ask better. */
export function jsonField(spec) {
  const control = el("textarea", {
    rows: spec.rows ?? 4,
    class: "code",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
  });
  const read = () => {
    const text = control.value.trim();
    if (text === "") return spec.required ? null : undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new FieldProblem(`This is no JSON: ${error.message}`, control);
    }
  };
  const write = (value) =>
    (control.value = value === undefined || value === null ? "" : JSON.stringify(value, null, 2));
  const schema = { ...spec.schema, description: spec.schema.description ?? "JSON: text stands in double quotes" };
  return framed(control, { ...spec, schema }, read, write);
}
