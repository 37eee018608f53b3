/* The dialog that makes a schedule. */

import { path } from "../api.js";
import { el } from "../dom.js";
import { openDialog } from "../parts/dialog.js";
import { schemaForm } from "../parts/form.js";
import { done } from "../parts/toast.js";

const field = (id, label, control, hint) =>
  el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    control,
    hint ? el("p", { class: "hint" }, hint) : null,
  );

/** Ask for a schedule and make it; `changed()` is told. */
export async function scheduleDialog(api, changed) {
  const { workflows } = await api.get("workflows");
  const known = workflows.filter((one) => one.registered && one.style !== "action");
  const workflow = el(
    "select",
    { id: "schedule-workflow" },
    known.map((one) => el("option", { value: one.name }, one.name)),
  );
  const kind = el(
    "select",
    { id: "schedule-kind" },
    el("option", { value: "every" }, "every so often"),
    el("option", { value: "cron" }, "by a cron line"),
  );
  const when = el("input", { type: "text", id: "schedule-when", value: "1h", autocomplete: "off", required: true });
  const zone = el("input", { type: "text", id: "schedule-zone", value: "UTC", autocomplete: "off" });
  const zoneField = field("schedule-zone", "Time zone", zone, "Such as Europe/Berlin.");
  const ident = el("input", {
    type: "text",
    id: "schedule-id",
    placeholder: "the workflow's name",
    autocomplete: "off",
  });
  const missed = el(
    "select",
    { id: "schedule-missed" },
    [
      ["one", "start one for all of them"],
      ["all", "start all of them"],
      ["skip", "skip them"],
    ].map(([value, text]) => el("option", { value }, text)),
  );
  const fit = () => {
    const cron = kind.value === "cron";
    zoneField.hidden = !cron;
    when.value = cron ? "0 3 * * *" : "1h";
  };
  kind.addEventListener("change", fit);
  fit();
  await openDialog(
    "New schedule",
    (close) => {
      const place = el("div");
      const send = async (input) => {
        const body = { workflow: workflow.value, input, catch_up: missed.value, [kind.value]: when.value.trim() };
        if (kind.value === "cron") body.tz = zone.value.trim();
        if (ident.value.trim()) body.id = ident.value.trim();
        await api.post(path("schedules"), body);
        done("Scheduled.");
        changed();
        close();
      };
      const show = () => {
        const schema = known.find((one) => one.name === workflow.value)?.input_schema ?? null;
        place.replaceChildren(
          el("h3", {}, "Input"),
          schemaForm(schema, { submit: "Schedule", onSubmit: send, onCancel: () => close() }).node,
        );
      };
      workflow.addEventListener("change", show);
      show();
      return [
        field("schedule-workflow", "Workflow", workflow),
        field("schedule-kind", "Starts", kind),
        field("schedule-when", "When", when, "An interval such as 30min, or five cron fields."),
        zoneField,
        field("schedule-id", "Id", ident),
        field("schedule-missed", "Ticks that were missed", missed),
        place,
      ];
    },
    { wide: true },
  );
}
