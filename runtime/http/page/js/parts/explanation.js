/* The sentence that says why an instance stands where it stands. */

import { el, whenChanged } from "../dom.js";
import { explain } from "../explain.js";
import { shortId } from "../format.js";
import { href } from "../router.js";
import { timeNode } from "./live_time.js";

/** Show it in `place`, with a button where a person can answer; `onAnswer(wait)`. */
export function showExplanation(place, instance, now, onAnswer) {
  const { parts, tone, action } = explain(instance, now);
  place.className = `why is-${tone}`;
  whenChanged(place, [parts, action], () => [
    el("p", {}, parts.map(part)),
    action ? el("button", { type: "button", class: "primary", on: { click: () => onAnswer(action) } }, "Answer") : null,
  ]);
}

function part(one) {
  if (typeof one === "string") return one;
  if (one.code) return el("code", {}, one.code);
  if (one.instance)
    return el(
      "a",
      { href: href(["instances", one.instance]), class: "mono", title: one.instance },
      shortId(one.instance),
    );
  if (one.running !== undefined)
    return el("a", { href: href(["instances"], { workflow: one.running, status: "running" }) }, "What runs");
  if (one.since) return timeNode(one.since, "since");
  return one.until ? timeNode(one.until, "ago") : timeNode(one.time, "clock");
}
