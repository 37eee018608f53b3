/* What needs a person: blocked instances, waits that a person can answer, what ended badly in the last day, alike ones in one row. */

import { path } from "../api.js";

const MOST = 12;

export class Needs {
  #answers = new Map();

  constructor(api) {
    this.api = api;
  }

  /** Return rows, the most urgent first: an instance each, with `ids` where several alike stand behind it. `broken` has ended badly. */
  async load(broken) {
    const list = (status, limit) => this.api.get("instances", { status, limit }).then((page) => page.instances);
    const [blocked, waiting] = await Promise.all([list("blocked", 50), list("waiting", 20)]);
    const answerable = await this.#answerable(waiting);
    return [...alike(blocked), ...answerable.slice(0, MOST), ...alike(broken)].slice(0, 2 * MOST);
  }

  /* A list does not say what is waited for; one that waits for another instance is no person's business. Asked once for each wait. */
  async #answerable(rows) {
    const known = new Map();
    await Promise.all(
      rows.map(async (row) => {
        const mark = `${row.id} ${row.current_step} ${row.executions}`;
        const asked = this.#answers.get(mark) ?? this.#ask(row);
        const answer = await asked;
        if (answer !== undefined) known.set(mark, asked);
        row.wait = answer ?? null;
      }),
    );
    this.#answers = known;
    return rows.filter((row) => row.wait !== null);
  }

  async #ask(row) {
    try {
      const instance = await this.api.get(path("instances", row.id), { values: "short" });
      return instance.waits_for.find((wait) => wait.kind === "signal") ?? null;
    } catch {
      return undefined; // it is gone, or the server did not answer: not for good
    }
  }
}

/* Rows of one workflow with one error, in one step, are one row; errors may differ in their numbers (a pid, a line, an amount). */
function alike(rows) {
  const groups = new Map();
  for (const row of rows) {
    const message = row.error?.message.replace(/\d+/g, "#");
    const key = JSON.stringify([row.workflow_name, row.status, row.error?.type, row.error?.step, message]);
    const first = groups.get(key);
    if (first) first.ids.push(row.id);
    else groups.set(key, { ...row, ids: [row.id] });
  }
  return [...groups.values()];
}
