/* What a person can do to instances and workflows. Each asks where it cannot be taken back, says what happened, and returns whether it did. */

import { path } from "./api.js";
import { el } from "./dom.js";
import { plural } from "./format.js";
import { confirmed, openDialog } from "./parts/dialog.js";
import { schemaForm } from "./parts/form.js";
import { attempt, done } from "./parts/toast.js";
import { go, href } from "./router.js";

export class Actions {
  /** `api` sends; `changed()` is told after each success. */
  constructor(api, changed = () => {}) {
    this.api = api;
    this.changed = changed;
  }

  async #post(button, id, verb, words, body) {
    const worked = await attempt(button, () => this.api.post(path("instances", id, verb), body));
    if (worked) {
      done(words);
      this.changed();
    }
    return worked;
  }

  async cancel(id, button = null) {
    const sure = await confirmed(
      "Cancel this instance?",
      "Its process and all that it started are ended, and its child workflows with it. This cannot be taken back.",
      "Cancel it",
    );
    return sure && this.#post(button, id, "cancel", "Cancelled.");
  }

  pause(id, button = null) {
    return this.#post(button, id, "pause", "Paused: a running one stops at its next step.");
  }

  unpause(id, button = null) {
    return this.#post(button, id, "unpause", "Resumed.");
  }

  retry(id, button = null) {
    return this.#post(button, id, "retry", "Queued again, from where it failed.");
  }

  /** `before(last)` does the last thing, once nothing is under way that it would pull the ground from. */
  async remove(id, button = null, before = (last) => last()) {
    if (!(await confirmed("Delete this instance?", "Its steps, events and logs are deleted with it.", "Delete it")))
      return false;
    const worked = await before(() => attempt(button, () => this.api.delete(path("instances", id))));
    if (worked) done("Deleted.");
    return worked;
  }

  /** Send a signal: `wait` is what is awaited, null asks for a name too. */
  signal(id, wait) {
    const title = wait ? `Answer ${wait.name}` : "Send a signal";
    return openDialog(title, (close) => {
      const name = el("input", { type: "text", id: "signal-name", required: true, autocomplete: "off" });
      const named = el(
        "div",
        { class: "field" },
        el("label", { for: "signal-name" }, "Name"),
        name,
        el("p", { class: "hint" }, "A signal that comes before its wait is kept for it."),
      );
      const form = schemaForm(wait?.schema ?? null, {
        submit: "Send",
        onCancel: () => close(false),
        onSubmit: async (payload) => {
          if (!wait && name.value.trim() === "") throw new Error("The signal needs a name.");
          await this.api.post(path("instances", id, "signal"), { name: wait?.name ?? name.value.trim(), payload });
          done("Sent.");
          this.changed();
          close(true);
        },
      });
      return wait ? form.node : [named, form.node];
    });
  }

  /** Fork an instance: from a step, with another input where wanted. Goes to the new one. */
  fork(instance, from, inputSchema) {
    return openDialog("Fork", (close) => {
      const keys = instance.steps.map((step) => step.key);
      const choose = el(
        "select",
        { id: "fork-from" },
        el("option", { value: "" }, "the beginning"),
        keys.map((key) => el("option", { value: key }, key)),
      );
      choose.value = from ?? "";
      const where = el(
        "div",
        { class: "field" },
        el("label", { for: "fork-from" }, "Run again from"),
        choose,
        el("p", { class: "hint" }, "A new instance shares the journal before this step; this one stays as it is."),
      );
      const other = el("input", { type: "checkbox" });
      const send = async (body) => {
        const made = await this.api.post(path("instances", instance.id, "fork"), {
          from_step: choose.value || null,
          ...body,
        });
        done("Forked: this is the new one.");
        close(made.id);
        go(href(["instances", made.id]));
      };
      const same = schemaFreeForm(
        "Fork",
        () => send({}),
        () => close(),
      );
      const changed = schemaForm(inputSchema, {
        submit: "Fork",
        value: whole(instance.input),
        onSubmit: (input) => send({ input }),
        onCancel: () => close(),
      });
      const place = el("div", {}, same);
      other.addEventListener("change", () => place.replaceChildren(other.checked ? changed.node : same));
      return [where, el("label", { class: "radio" }, other, el("span", {}, "with another input")), place];
    });
  }

  /** Fork many from their beginnings; who is looked at stays where they are. */
  async forkAll(ids, button = null) {
    const sure = await confirmed(
      `Run ${plural(ids.length, "instance")} again?`,
      "Each begins anew, as an instance of its own with the same input; these stay as they are.",
      "Fork",
      "primary",
    );
    if (!sure) return false;
    return attempt(button, async () => {
      const refused = [];
      for (const id of ids)
        await this.api.post(path("instances", id, "fork"), {}).catch((error) => refused.push(error.message));
      if (refused.length < ids.length) done(`Forked: ${plural(ids.length - refused.length, "instance")}.`);
      this.changed();
      if (refused.length) throw couldNot(refused.length, refused[0]);
    });
  }

  /** Start an instance of a workflow. Goes to it. */
  start(workflow) {
    return openDialog(`Start ${workflow.name}`, (close) => startForm(this.api, workflow, close), { wide: true });
  }

  /** Do something to many: `filter` is `{ids}` or `{workflow, status}`. */
  async bulk(action, filter, count, button = null) {
    const words = { cancel: "Cancel", retry: "Retry", cleanup: "Delete" }[action];
    const sure = await confirmed(
      `${words} ${plural(count, "instance")}?`,
      BULK[action],
      words,
      action === "retry" ? "primary" : "danger",
    );
    if (!sure) return false;
    return attempt(button, async () => {
      const answer = await this.api.post("instances/bulk", { action, ...filter });
      done(`${words}: ${plural(answer.count, "instance")}.`);
      this.changed();
      if (answer.failed?.length) throw couldNot(answer.failed.length, answer.failed[0].detail);
    });
  }
}

const couldNot = (number, why) => new Error(`${plural(number, "instance")} could not: ${why}`);

const BULK = {
  cancel: "Their processes and all that they started are ended. This cannot be taken back.",
  retry: "Each goes on from the step in which it failed.",
  cleanup: "Their steps, events and logs are deleted with them.",
};

function whole(value) {
  return value !== null && typeof value === "object" && value.$truncated ? undefined : value;
}

function schemaFreeForm(submit, onSubmit, onCancel) {
  const button = el("button", { type: "submit", class: "primary" }, submit);
  const form = el(
    "form",
    { class: "form" },
    el(
      "div",
      { class: "form-buttons" },
      button,
      el("button", { type: "button", class: "quiet", on: { click: onCancel } }, "Close"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(button, onSubmit);
  });
  return form;
}

/** The form that starts an instance, with its options folded away. */
export function startForm(api, workflow, close) {
  const text = (id, hint) => el("input", { type: "text", id, placeholder: hint, autocomplete: "off" });
  const ident = text("start-id", "made by the server");
  const delay = text("start-delay", "5min");
  const priority = el("input", { type: "number", id: "start-priority", step: 1, placeholder: "0" });
  const row = (id, label, input, hint) =>
    el("div", { class: "field" }, el("label", { for: id }, label), input, el("p", { class: "hint" }, hint));
  const options = el(
    "details",
    { class: "options" },
    el("summary", {}, "Id, delay, priority"),
    row("start-id", "Id", ident, "The same id again starts nothing."),
    row("start-delay", "Delay", delay, "Such as 30s, 5min, 2h."),
    row("start-priority", "Priority", priority, "A higher one runs first."),
  );
  const form = schemaForm(workflow.input_schema, {
    submit: "Start",
    extra: [options],
    onCancel: close ? () => close() : null,
    onSubmit: async (input) => {
      const body = { input };
      if (ident.value.trim()) body.id = ident.value.trim();
      if (delay.value.trim()) body.delay = delay.value.trim();
      if (priority.value) body.priority = Number(priority.value);
      const made = await api.post(path("workflows", workflow.name, "start"), body);
      done(made.created ? "Started." : "It was started before; this is it.");
      close?.(made.id);
      go(href(["instances", made.id]));
    },
  });
  return form.node;
}
