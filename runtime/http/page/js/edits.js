/* What a person changes of an instance besides its course: its metadata, and the data of a state machine. */

import { path } from "./api.js";
import { el, uniqueId } from "./dom.js";
import { openDialog } from "./parts/dialog.js";
import { schemaForm } from "./parts/form.js";
import { done } from "./parts/toast.js";
import { resolve } from "./schema.js";

/** Set one key of an instance's metadata; the others stay as they are, whoever changes them meanwhile. */
export function editMetadata(api, id, metadata, changed) {
  return openDialog("Set metadata", (close) => {
    const [input, list] = [uniqueId("key"), uniqueId("keys")];
    const key = el("input", { type: "text", id: input, list, required: true, autocomplete: "off" });
    const named = el(
      "div",
      { class: "field" },
      el("label", { for: input }, "Key"),
      key,
      el("datalist", { id: list }, Object.keys(metadata).map((one) => el("option", { value: one }))),
      el("p", { class: "hint" }, "One that is there, or a new one. Other keys stay as they are."),
    );
    const form = schemaForm(null, {
      submit: "Set",
      onCancel: () => close(false),
      onSubmit: async (value) => {
        if (key.value === "") throw new Error("The key is needed.");
        await api.post(path("instances", id, "metadata"), { [key.value]: value });
        done("Set.");
        changed();
        close(true);
      },
    });
    key.addEventListener("change", () => {
      const held = metadata[key.value];
      if (held !== undefined && !held?.$truncated) form.write(held);
    });
    return [named, form.node];
  });
}

/** Change the data of a state machine: what differs is sent, key by key. */
export async function editState(api, id, changed) {
  const { state, state_schema: schema } = await api.get(path("instances", id), { values: "full" });
  return openDialog("Change the data", (close) => {
    const form = schemaForm(allAsked(schema), {
      submit: "Change",
      value: state,
      onCancel: () => close(false),
      onSubmit: async (value) => {
        const differs = ([key, one]) => JSON.stringify(one) !== JSON.stringify(state[key]);
        const patch = Object.fromEntries(Object.entries(value ?? {}).filter(differs));
        if (Object.keys(patch).length) await api.post(path("instances", id, "state"), patch);
        done(Object.keys(patch).length ? "The machine takes it at its next transition or wait." : "Nothing differs.");
        changed();
        close(true);
      },
    });
    return [
      el("p", { class: "muted" }, "As of its last transition, with the changes that wait for the next one."),
      form.node,
    ];
  });
}

/* Every field has a value already, so that one which is emptied is null or empty text, not left out. */
function allAsked(schema) {
  const found = resolve(schema ?? {}, schema ?? {});
  return found.properties ? { ...schema, ...found, required: Object.keys(found.properties) } : found;
}
