/*
 * Which places of a graph an instance has been to, and by which ways. Pure.
 *
 * The journal's key of a step is its path: `fulfill/shipping/ship#2` is the second visit of `ship` in the branch `shipping` of `fulfill`.
 * Without the numbers it names a node of the graph.
 */

/** The place in the graph that a journal key belongs to. */
export function placeOf(key) {
  return key
    .split("/")
    .map((part) => part.replace(/#\d+$/, ""))
    .join("/");
}

/** How much a status says about a place that was visited several times: what is going on beats what was. */
const WEIGHT = { running: 5, retrying: 4, waiting: 4, failed: 3, cancelled: 3, completed: 1 };

/** Gather steps by place: `Map(place → {status, visits, attempts, loops, polls, steps})`. */
export function visitsOf(steps) {
  const visits = new Map();
  for (const step of steps) {
    const place = placeOf(step.key);
    const seen = visits.get(place);
    if (seen === undefined) {
      visits.set(place, {
        status: step.status,
        visits: 1,
        attempts: step.attempts,
        loops: step.loop_count,
        polls: step.poll_count,
        steps: [step],
      });
      continue;
    }
    seen.visits += 1;
    seen.attempts = step.attempts;
    seen.loops += step.loop_count;
    seen.polls += step.poll_count;
    seen.steps.push(step);
    if (WEIGHT[step.status] > 1 || WEIGHT[seen.status] === 1) seen.status = step.status;
  }
  for (const [place, seen] of visits) if (seen.status === "running" && rests(place, visits)) seen.status = "waiting";
  return visits;
}

/* A step that holds others does what they do: where all that is open in it waits, it waits. */
function rests(place, visits) {
  const inner = [...visits].filter(([other]) => other.startsWith(`${place}/`)).map(([, seen]) => seen.status);
  return inner.includes("waiting") && !inner.includes("running");
}

/** Whether the way from a node was taken: by its kind, its choice, its count of jumps, and whether the target was reached. */
export function taken(node, edge, place, scope, visits, over) {
  const from = visits.get(place);
  if (from === undefined) return false;
  const done = from.steps.some((step) => step.status === "completed");
  if (edge.kind === "ahead") return false;
  if (edge.to === null) return done && over && (node.kind !== "choice" || chosen(from, null));
  if (!visits.has(scope + edge.to)) return false;
  if (node.kind === "choice") return chosen(from, edge.to);
  if (edge.kind === "loop") return from.loops > 0;
  return done;
}

function chosen(visit, target) {
  return visit.steps.some((step) => step.output === target);
}

/**
 * Draw a graph from the journal alone, where the code decides the way: one node a name, an edge from each step to those that began
 * when it had ended and nothing else had begun in between. Names of the outline that were not reached are added in their order.
 */
export function observed(steps, outline) {
  const top = steps.filter((step) => !step.key.includes("/"));
  const nodes = new Map();
  const add = (name, kind) => {
    if (!nodes.has(name)) nodes.set(name, { name, kind, edges: [], branches: [], details: {} });
    return nodes.get(name);
  };
  for (const step of top) add(step.step_name, step.kind);
  for (const [from, to] of follows(top)) {
    const edges = nodes.get(from.step_name).edges;
    if (!edges.some((edge) => edge.to === to.step_name)) edges.push({ to: to.step_name, kind: "next", label: null });
  }
  const ahead = (outline ?? []).filter((node) => !nodes.has(node.name));
  const start = top[0]?.step_name ?? ahead[0]?.name ?? null;
  for (const node of ahead) add(node.name, node.kind);
  const named = (outline ?? [])
    .flatMap((node) => node.edges.map((edge) => [node.name, edge.to]))
    .filter(([, to]) => nodes.has(to));
  for (const [from, to] of named.length ? named : chain(top.at(-1)?.step_name, ahead)) {
    const { edges } = nodes.get(from);
    if (!edges.some((edge) => edge.to === to)) edges.push({ to, kind: "ahead", label: null });
  }
  return { start, nodes: [...nodes.values()] };
}

/* Steps that are not reached yet, one after the other as they are written. */
function chain(last, ahead) {
  const names = [last, ...ahead.map((node) => node.name)].filter((name) => name !== undefined);
  return names.slice(1).map((name, index) => [names[index], name]);
}

/*
 * A step follows each step that had ended when it began, unless another one lies wholly between them. Of those that had ended, let M be
 * the one that began last: all that ended before M began are behind it. Ties are decided by the journal's order, for steps that take no
 * time at all.
 */
function* follows(steps) {
  const spans = steps.map((step, index) => ({
    step,
    index,
    from: exact(step.started_at),
    to: exact(step.completed_at),
  }));
  const ended = spans.filter((span) => span.to !== Infinity).sort((a, b) => a.to - b.to || a.index - b.index);
  const latest = [];
  for (const span of ended) {
    const last = latest.at(-1);
    latest.push(last === undefined || later(span, last) ? span : last);
  }
  for (const span of spans) {
    let index = countUntil(ended, span) - 1;
    const border = latest[index];
    for (; index >= 0 && !behind(ended[index], border); index -= 1) yield [ended[index].step, span.step];
  }
}

const later = (one, other) => one.from > other.from || (one.from === other.from && one.index > other.index);
const behind = (one, border) => one.to < border.from || (one.to === border.from && one.index < border.index);

/* How many of `ended` had ended when the span began. */
function countUntil(ended, span) {
  let low = 0;
  let high = ended.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const one = ended[middle];
    if (one.to < span.from || (one.to === span.from && one.index < span.index)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* Milliseconds with the microseconds that Date.parse drops. */
function exact(text) {
  if (text === null) return Infinity;
  const fraction = /\.\d{3}(\d{1,3})/.exec(text);
  return Date.parse(text) + (fraction ? Number(`0.${fraction[1]}`) : 0);
}
