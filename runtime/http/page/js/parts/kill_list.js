/* What the watchdog ended, and the stacks that it took first. */

import { el, keyed } from "../dom.js";
import { duration, shortId, toMs } from "../format.js";
import { href } from "../router.js";
import { culprit, textBlock } from "./error_view.js";
import { timeNode } from "./live_time.js";

/** What each reason means, for someone who reads it at night. */
const REASONS = {
  silent: "it was silent and used no CPU",
  stopped: "it was stopped",
  step_timeout: "its step ran past its timeout",
  stalled: "its event loop stood still",
};

/** Bring a list of kills up to date; `named` adds whose process it was. */
export function showKills(list, kills, { named = true } = {}) {
  keyed(
    list,
    kills,
    (kill) => kill.id,
    (kill) => row(kill, named),
    () => {},
  );
}

function row(kill, named) {
  const found = culprit(kill.stack);
  const facts = [`pid ${kill.pid ?? "–"}`];
  if (kill.silent_for !== null && kill.silent_for !== undefined)
    facts.push(`silent for ${duration(kill.silent_for * 1000)}`);
  if (kill.timeout !== null && kill.timeout !== undefined) facts.push(`limit ${duration(kill.timeout * 1000)}`);
  const who = named
    ? [
        el(
          "a",
          { href: href(["instances", kill.instance_id]), class: "mono", title: kill.instance_id },
          shortId(kill.instance_id),
        ),
        " of ",
        kill.workflow_name,
        ": ",
      ]
    : [];
  return el(
    "li",
    { class: "kill" },
    el(
      "p",
      {},
      timeNode(toMs(kill.created_at)),
      " · ",
      who,
      el("strong", {}, `ended, because ${REASONS[kill.reason] ?? kill.reason}`),
      found ? [", in ", el("code", {}, found.name), ` (${found.file}, line ${found.line})`] : null,
    ),
    el("p", { class: "muted" }, facts.join(" · ")),
    kill.stack
      ? textBlock("Stacks of all threads", kill.stack, { open: false })
      : el("p", { class: "muted" }, "No stack could be taken."),
  );
}
