/* Why an instance stands where it stands, in one sentence, and what would move it on. Pure: parts are texts and links. */

import { brief, duration, relative, remaining, toMs } from "./format.js";

const step = (name) => ({ code: name });

/** Explain an instance in full: `{parts: [text | {code} | {instance} | {running} | {since} …], tone, action}`. `now` is the server's time. */
export function explain(instance, now) {
  const waits = instance.waits_for ?? [];
  const { status } = instance;
  if (status === "running") return { parts: running(instance, waits, now), tone: "running" };
  if (status === "waiting") return { parts: waiting(instance, waits, now), tone: "waiting", action: signalOf(waits) };
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
  const { progress = null } = instance;
  if (progress !== null && progress.step === at) parts.push(`: ${far(progress.value)}`);
  const wait = waits.find((one) => one.kind === "signal" || one.kind === "time");
  if (wait?.kind === "signal") parts.push("; a signal ", step(wait.name), " is awaited");
  if (wait?.kind === "time" && toMs(wait.until) > now) parts.push("; a wait ends ", { until: toMs(wait.until) });
  const { error } = instance;
  const before = error ? [" It goes on after ", `${error.type}: ${sentence(firstLine(error.message))}`] : [];
  return [...parts, ".", ...before];
}

/* What a handler says of its progress may be any JSON; a share is a percentage. */
function far(value) {
  return typeof value === "number" && value >= 0 && value <= 1 ? `${Math.floor(100 * value)} %` : brief(value, 80);
}

function waiting(instance, waits, now) {
  const wanted = waits.find((one) => one.kind === "signal") ?? waits.find((one) => one.kind === "instance") ?? waits[0];
  if (wanted === undefined) return ["Waits."];
  if (wanted.kind === "instance") {
    const child = (instance.children ?? []).find((one) => one.id === wanted.instance_id);
    const which = child ? [`${child.workflow_name} `, { instance: child.id }, ` (${word(child.status)})`] : null;
    return ["Waits for the end of ", ...(which ?? [{ instance: wanted.instance_id }]), ". It has no process meanwhile."];
  }
  if (wanted.kind !== "signal") return sleeping({}, waits, now);
  const parts = ["Waits for the signal ", step(wanted.name), until(wanted, now)];
  const more = waits.filter((one) => one.kind === "signal").length - 1;
  if (more > 0) parts.push(` ${more} more ${more === 1 ? "is" : "are"} awaited.`);
  return parts;
}

function until(wait, now) {
  const ms = toMs(wait.until);
  if (ms === null) return ". It has no deadline.";
  return ms > now ? `. Its time runs out in ${remaining(ms - now)}.` : ". Its time is over.";
}

function sleeping(instance, waits, now) {
  const wait = waits.find((one) => one.kind === "time");
  const ms = toMs(wait?.until ?? instance.wake_at ?? null);
  const tried = (instance.steps ?? []).find((one) => one.status === "retrying" && one.key === wait?.step);
  if (tried?.error) return retrying(tried, ms, now);
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

function retrying(step_, ms, now) {
  const { type, message } = step_.error;
  const parts = [`Attempt ${step_.attempts} of `, step(step_.key), ` failed: ${type}: ${sentence(firstLine(message))}`];
  return ms === null ? parts : [...parts, " It is tried again at ", { time: ms }, ms > now ? `, ${relative(ms, now)}.` : "."];
}

function pending(instance, waits, now) {
  const slot = waits.find((one) => one.kind === "slot");
  const ms = toMs(instance.wake_at);
  if (ms !== null && ms > now) return ["Delayed until ", { time: ms }, `, ${relative(ms, now)}.`];
  if (!slot) return ["Queued: it begins as soon as a slot is free."];
  const ahead = slot.ahead ? ` ${slot.ahead === 1 ? "One is" : `${slot.ahead} are`} ahead of it.` : "";
  const reason = slot.reason ?? "it waits for a slot";
  const what = /^its workflow/.test(reason) ? instance.workflow_name : /busy$/.test(reason) ? "" : null;
  return [`Queued: ${sentence(reason)}${ahead}`, ...(what === null ? [] : [" ", { running: what }])];
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
  const where = error?.step ? [" in ", step(error.step)] : [];
  if (status === "timed_out")
    return ["Timed out", ...where, `: ${sentence(error?.message ?? "the workflow's timeout has passed")}`];
  if (!error) return ["Failed."];
  return ["Failed", ...where, `: ${error.type}: ${sentence(firstLine(error.message))}`];
}

/** The first open signal that a person can answer. */
export function signalOf(waits) {
  return (waits ?? []).find((one) => one.kind === "signal") ?? null;
}

/** A few words for a row of a table. */
export function glance(row, now) {
  const wake = toMs(row.wake_at);
  const at = row.current_step?.split("/").at(-1).replace(/^wait for /, "");
  if (row.status === "running") return row.current_step ?? "begins";
  if (row.status === "waiting") return at ? `for ${at}` : "";
  if (row.retrying && row.status === "sleeping")
    return `again ${wake === null ? "" : relative(wake, now)} after ${row.retrying.type}: ${firstLine(row.retrying.message)}`;
  if (row.status === "sleeping" || (row.status === "pending" && wake !== null))
    return wake === null ? "" : relative(wake, now);
  if (row.status === "pending") return "for a slot";
  if (row.error) return `${row.error.type}: ${firstLine(row.error.message)}`;
  return row.status === "paused" ? (row.current_step ?? "") : "";
}

function firstLine(text) {
  return String(text ?? "").split("\n", 1)[0];
}

const word = (status) => status.replace("_", " ");

function sentence(text) {
  const trimmed = String(text ?? "").trim();
  return /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}
