/* All workflows, actions included. */

import { Actions } from "../actions.js";
import { el } from "../dom.js";
import { failed } from "../parts/toast.js";
import { WorkflowTable } from "../parts/workflow_table.js";
import { Refresher } from "../refresh.js";

export async function open(app) {
  const empty = el(
    "p",
    { class: "empty card" },
    "No workflow is registered. Call ",
    el("code", {}, "server.workflows.register(definition)"),
    ", or serve a module that does.",
  );
  const actions = new Actions(app.api, () => refresher.poke());
  const table = new WorkflowTable({ onStart: (workflow) => actions.start(workflow) });
  const load = async () => {
    const { workflows } = await app.api.get("workflows");
    table.show(workflows);
    empty.hidden = workflows.length > 0;
  };
  const refresher = new Refresher(() => load().catch((error) => error.status && failed(error)), {
    gap: 1000,
    every: 5000,
  });
  await load();
  app.follow("events", { query: { pattern: "workflow.*", short: 1 }, onEvents: () => refresher.poke() });
  refresher.poke();
  const node = el(
    "div",
    { class: "view" },
    el("header", { class: "view-head" }, el("h1", {}, "Workflows")),
    el("section", { class: "card" }, table.node),
    empty,
  );
  return { node, title: "Workflows", close: () => refresher.stop() };
}
