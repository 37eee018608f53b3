/*
 * Time on a line. Pure.
 *
 * An instance may work for two seconds, sleep for a week and work for two more. On a true scale the work would be two invisible
 * specks, so long stretches in which nothing happens are folded to a small share of the line, and drawn as a break that says how
 * long they are.
 */

const FOLDED = 0.07; // the share of the line that a folded stretch keeps
const MOST_FOLDED = 0.5;
const WORTH_FOLDING = 0.22; // of what is left to show
const LEAST_FOLDED = 3000;

/** Join spans `[from, to]` that touch, in order. */
export function union(spans) {
  const sorted = spans.filter(([from, to]) => to >= from).sort((a, b) => a[0] - b[0]);
  const joined = [];
  for (const [from, to] of sorted) {
    const last = joined.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/**
 * Make the scale of `[start, end]` in which the spans of `busy` are worth their length; `width` is that of the line in pixels.
 *
 * Returns `{at(ms) → 0…1, folds: [{from, to, left, width}], ticks: [{ms, left}]}`.
 */
export function timescale(start, end, busy, width = 600) {
  const whole = Math.max(1, end - start);
  const idle = gaps(start, end, union(busy.map(([from, to]) => [Math.max(start, from), Math.min(end, to)])));
  const folded = worthFolding(idle, whole);
  const hidden = lengthOf(folded);
  const shown = Math.max(1, whole - hidden);
  const share = folded.length ? Math.min(FOLDED, MOST_FOLDED / folded.length) : 0;
  const perMs = (1 - share * folded.length) / shown;
  const pieces = [];
  let left = 0;
  let at = start;
  const add = (to, part, fold) => {
    pieces.push({ from: at, to, left, width: part, fold });
    left += part;
    at = to;
  };
  for (const [from, to] of folded) {
    if (from > at) add(from, (from - at) * perMs, false);
    add(to, share, true);
  }
  if (at < end) add(end, (end - at) * perMs, false);
  for (const piece of pieces) {
    // where nothing but folds is left, they take the whole line
    piece.left /= left;
    piece.width /= left;
  }
  return {
    at: (ms) => place(pieces, ms, start),
    folds: pieces.filter((piece) => piece.fold),
    ticks: ticks(pieces, width),
  };
}

const lengthOf = (spans) => spans.reduce((sum, [from, to]) => sum + to - from, 0);

/* Folding the longest may make another one too long for what is left. */
function worthFolding(idle, whole) {
  let folded = [];
  for (;;) {
    const shown = whole - lengthOf(folded);
    const next = idle.filter(
      ([from, to]) =>
        to - from > LEAST_FOLDED && (to - from > shown * WORTH_FOLDING || folded.some((one) => one[0] === from)),
    );
    if (next.length === folded.length) return folded;
    folded = next;
  }
}

function gaps(start, end, busy) {
  const found = [];
  let at = start;
  for (const [from, to] of busy) {
    if (from > at) found.push([at, from]);
    at = Math.max(at, to);
  }
  if (end > at) found.push([at, end]);
  return found;
}

function place(pieces, ms, start) {
  if (!pieces.length || ms <= start) return 0;
  for (const piece of pieces) {
    if (ms <= piece.to) return piece.left + (piece.width * (ms - piece.from)) / Math.max(1e-9, piece.to - piece.from);
  }
  return 1;
}

const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
  900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000,
];

/* A mark for every hundred pixels or so, at round distances from each piece's own beginning. */
function ticks(pieces, width) {
  const apart = 78 / Math.max(1, width);
  const marks = [];
  const open = pieces.filter((piece) => !piece.fold && piece.width > apart);
  for (const piece of open) {
    const wanted = (piece.to - piece.from) / Math.max(1, Math.floor((piece.width * width) / 100));
    const step = STEPS.find((one) => one >= wanted) ?? STEPS.at(-1);
    for (let ms = piece.from; ms <= piece.to; ms += step) {
      const left = piece.left + (piece.width * (ms - piece.from)) / Math.max(1, piece.to - piece.from);
      if (!marks.length || left - marks.at(-1).left > apart) marks.push({ ms, left });
    }
  }
  return marks.filter((mark) => mark.left < 1 - apart * 0.7);
}
