/* What the timeline shows: rows of bars, from an instance's steps and runs. Pure. */

import { toMs } from "./format.js";

/** Kinds of steps that wait, without a process where the wait is long. */
const WAITS = new Set(["sleep", "wait_event", "poll", "wait_for", "child", "start"]);

/** Kinds of steps that hold others: they are a bracket around them. */
const HOLDS = new Set(["parallel", "state"]);

/** How a try's outcome is shown. */
const TONE = {
  running: "running",
  completed: "completed",
  retry: "retrying",
  failed: "failed",
  crashed: "failed",
  interrupted: "pending",
  cancelled: "cancelled",
};

/** What is waited for after a try. */
const GAP = {
  crashed: "until another process took over",
  interrupted: "until another process took over",
  failed: "until it was retried",
};

/** `{start, end, busy, rows}` of an instance; `now` ends what has not ended. Times are milliseconds. */
export function timeline(instance, now) {
  const start = toMs(instance.created_at);
  const end = Math.max(toMs(instance.completed_at) ?? now, start + 1);
  const runs = instance.runs.map((run) => ({
    from: toMs(run.at),
    to: toMs(run.ended_at) ?? end,
    open: run.ended_at === null,
    pid: run.pid,
    why: run.why,
  }));
  const rows = instance.steps.map((step) => stepRow(step, end, instance.status));
  const busy = [
    ...runs.map((run) => [run.from, run.to]),
    ...rows.flatMap((row) => row.bars.filter((bar) => !bar.waits && !bar.holds).map((bar) => [bar.from, bar.to])),
  ];
  const kills = (instance.kills ?? []).map((kill) => ({
    at: toMs(kill.created_at),
    reason: kill.reason,
    pid: kill.pid,
  }));
  const queued = runs.length ? runs[0].from : end;
  return { start, end, busy, rows, runs, kills, queued };
}

function stepRow(step, end, doing) {
  // what holds others does what they do
  const status = step.status === "running" && HOLDS.has(step.kind) && doing !== "running" ? "waiting" : step.status;
  const from = toMs(step.started_at);
  const to = toMs(step.completed_at) ?? (from === null ? null : end);
  const bars = [];
  if (from !== null && WAITS.has(step.kind)) {
    bars.push({
      from,
      to,
      tone: step.status === "failed" ? "failed" : step.kind === "sleep" ? "sleeping" : "waiting",
      waits: true,
      text: waitText(step),
    });
  } else if (from !== null && HOLDS.has(step.kind)) {
    bars.push({ from, to, tone: status, holds: true, text: "" });
  } else if (from !== null) {
    bars.push(...tryBars(step, from, to, end));
  }
  return {
    key: step.key,
    name: step.step_name,
    depth: step.key.split("/").length - 1,
    status,
    kind: step.kind,
    bars,
    from,
    to,
  };
}

function waitText(step) {
  if (step.kind === "poll") return `${step.poll_count} checks`;
  return step.kind === "sleep" ? "sleep" : (step.event_name ?? step.kind.replaceAll("_", " "));
}

/* One bar a try, and between two of them the delay. */
function tryBars(step, from, to, end) {
  const tries = step.tries ?? [];
  if (!tries.length) return [{ from, to, tone: step.status === "completed" ? "completed" : step.status, text: "" }];
  const bars = [];
  tries.forEach((one, index) => {
    const began = toMs(one.started_at) ?? from;
    const ended = toMs(one.ended_at) ?? (one.outcome === "running" ? end : to);
    const error = one.error ? `: ${one.error.type}: ${one.error.message}` : "";
    const last = index === tries.length - 1;
    const tone = last && step.status === "failed" ? "failed" : (TONE[one.outcome] ?? "running");
    bars.push({ from: began, to: ended, tone, text: `attempt ${one.attempt}, ${one.outcome}${error}` });
    const next = tries[index + 1];
    const again = next ? toMs(next.started_at) : step.status === "retrying" ? end : null;
    if (again !== null && again > ended && one.outcome !== "completed") {
      bars.push({
        from: ended,
        to: again,
        tone: "retrying",
        waits: true,
        text: GAP[one.outcome] ?? "delay before the next try",
      });
    }
  });
  return bars;
}
