/* Why an instance stands where it stands, in one sentence, and what would move it on. Pure: parts are texts and links. */

import { coarse, duration, relative, toMs } from "./format.js";

const step = (name) => ({ code: name });

/** Explain an instance in full: `{parts: [text | {code} | {instance} | {since} …], tone, action}`. `now` is the server's time. */
export function explain(instance, now) {
  const waits = instance.waits_for ?? [];
  const { status } = instance;
  if (status === "running") return { parts: running(instance, waits, now), tone: "running" };
  if (status === "waiting") return { parts: waiting(waits, now), tone: "waiting", action: signalOf(waits) };
  if (status === "sleeping")
    return { parts: sleeping(instance, waits, now), tone: "sleeping", action: signalOf(waits) };
  if (status === "pending") return { parts: pending(instance, waits, now), tone: "pending" };
  if (status === "paused") return { parts: ["Held by a person. It goes on after Resume."], tone: "paused" };
  if (status === "blocked") return { parts: blocked(instance), tone: "blocked" };
  return { parts: ended(instance), tone: status };
}

function running(instance, waits, now) {
  const at = instance.current_step;
  const parts = at ? ["Works on ", step(at)] : ["Works"];
  const open = (instance.steps ?? []).find((one) => one.key === at && one.status === "running");
  const began = toMs(open?.tries?.at(-1)?.started_at ?? open?.started_at);
  if (began !== null) parts.push(", for ", { since: began });
  if (open && open.attempts > 1) parts.push(`, attempt ${open.attempts}`);
  const wait = waits.find((one) => one.kind === "signal" || one.kind === "time");
  if (wait?.kind === "signal") parts.push("; a signal ", step(wait.name), " is awaited");
  if (wait?.kind === "time" && toMs(wait.until) > now) parts.push("; a wait ends ", { until: toMs(wait.until) });
  return [...parts, "."];
}

function waiting(waits, now) {
  const wanted = waits.find((one) => one.kind === "signal") ?? waits.find((one) => one.kind === "instance") ?? waits[0];
  if (wanted === undefined) return ["Waits."];
  if (wanted.kind === "instance")
    return ["Waits for the end of ", { instance: wanted.instance_id }, ". It has no process meanwhile."];
  if (wanted.kind !== "signal") return sleeping({}, waits, now);
  const parts = ["Waits for the signal ", step(wanted.name), until(wanted, now)];
  const more = waits.filter((one) => one.kind === "signal").length - 1;
  if (more > 0) parts.push(` ${more} more ${more === 1 ? "is" : "are"} awaited.`);
  return parts;
}

function until(wait, now) {
  const ms = toMs(wait.until);
  if (ms === null) return ". It has no deadline.";
  return ms > now ? `. Its time runs out in ${coarse(ms - now)}.` : ". Its time is over.";
}

function sleeping(instance, waits, now) {
  const wait = waits.find((one) => one.kind === "time");
  const ms = toMs(wait?.until ?? instance.wake_at ?? null);
  const what = wait?.step ? [" in ", step(wait.step)] : [];
  if (ms === null) return ["Sleeps", ...what, "."];
  return [
    "Sleeps",
    ...what,
    " until ",
    { time: ms },
    ms > now ? `, ${relative(ms, now)}` : "",
    ". It has no process meanwhile.",
  ];
}

function pending(instance, waits, now) {
  const slot = waits.find((one) => one.kind === "slot");
  const ms = toMs(instance.wake_at);
  if (ms !== null && ms > now) return ["Delayed until ", { time: ms }, `, ${relative(ms, now)}.`];
  if (!slot) return ["Queued: it begins as soon as a slot is free."];
  const ahead = slot.ahead ? ` ${slot.ahead === 1 ? "One is" : `${slot.ahead} are`} ahead of it.` : "";
  return [`Queued: ${sentence(slot.reason ?? "it waits for a slot")}${ahead}`];
}

function blocked(instance) {
  const why = instance.error
    ? `${instance.error.type}: ${sentence(instance.error.message)}`
    : "the code that it needs is not there.";
  return ["Cannot go on: ", why, " Put the code or the plugin right, then Retry; nothing that was done is lost."];
}

function ended(instance) {
  const { error, status } = instance;
  const began = toMs(instance.started_at);
  if (status === "completed")
    return [began === null ? "Done." : `Done, in ${duration(toMs(instance.completed_at) - began)}.`];
  if (status === "cancelled") return ["Cancelled by a person."];
  if (status === "timed_out") return [`The workflow's deadline passed.${error ? ` ${sentence(error.message)}` : ""}`];
  if (!error) return ["Failed."];
  const where = error.step ? [" in ", step(error.step)] : [];
  return ["Failed", ...where, `: ${error.type}: ${sentence(firstLine(error.message))}`];
}

/** The first open signal that a person can answer. */
export function signalOf(waits) {
  return (waits ?? []).find((one) => one.kind === "signal") ?? null;
}

/** A few words for a row of a table. */
export function glance(row, now) {
  const wake = toMs(row.wake_at);
  if (row.status === "running") return row.current_step ?? "begins";
  if (row.status === "waiting") return row.current_step ? `for ${row.current_step.split("/").at(-1)}` : "";
  if (row.status === "sleeping" || (row.status === "pending" && wake !== null))
    return wake === null ? "" : relative(wake, now);
  if (row.status === "pending") return "for a slot";
  if (row.error) return `${row.error.type}: ${firstLine(row.error.message)}`;
  return row.status === "paused" ? (row.current_step ?? "") : "";
}

function firstLine(text) {
  return String(text ?? "").split("\n", 1)[0];
}

function sentence(text) {
  const trimmed = String(text ?? "").trim();
  return /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}
