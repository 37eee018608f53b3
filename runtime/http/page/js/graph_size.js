/* How large a node of a graph is drawn, and what stands in it. Texts are measured with the font that they will have. */

const FAMILY = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const NAME = `600 13px ${FAMILY}`;
const NOTE = `400 11px ${FAMILY}`;
const MARGIN = 50; // the icon, and the space around the text
const LEAST = 104;
const MOST = 240;

const pen = document.createElement("canvas").getContext("2d");

function widthOf(text, font) {
  pen.font = font;
  return pen.measureText(text).width;
}

/** The second line of a node: its kind, and what matters of it. */
export function noteOf(node) {
  const { details = {}, kind } = node;
  if (kind === "sleep" && details.seconds !== undefined) return `sleeps ${seconds(details.seconds)}`;
  if (kind === "poll" && details.interval !== undefined) return `poll, every ${seconds(details.interval)}`;
  if (kind === "child" && details.workflow) return `runs ${details.workflow}`;
  if (kind === "wait_event") return "waits for a signal";
  if (kind === "parallel") return details.on_error === "wait-all" ? "side by side, all" : "side by side";
  if (kind === "task" && details.retry?.max_attempts > 1) return `task, ${details.retry.max_attempts} tries`;
  return String(kind).replaceAll("_", " ");
}

function seconds(value) {
  if (value < 60) return `${value} s`;
  if (value < 3600) return `${Math.round(value / 60)} min`;
  return value < 86_400 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86_400)} d`;
}

/** Width and height of a node without branches, or the least of one with. */
function sizeOf(node) {
  const width = Math.max(widthOf(node.name, NAME), widthOf(noteOf(node), NOTE)) + MARGIN;
  return { width: Math.ceil(Math.min(MOST, Math.max(LEAST, width))), height: 46 };
}

const LABEL = 150;

/** What stands at an edge: a choice's condition. */
export function labelOf(edge) {
  const text = edge.label ?? (edge.kind === "default" ? "otherwise" : null);
  return text === null ? null : cutNote(text, LABEL);
}

/** What the layout asks. */
export const SIZES = {
  node: sizeOf,
  label: (edge) => (labelOf(edge) === null ? 0 : widthOf(labelOf(edge), NOTE) + 10),
};

/** A name cut to what fits into a node's width. */
export function cutName(text, width) {
  return cut(text, width - MARGIN + 8, NAME);
}

/** A note, or an edge's label, cut to a width. */
export function cutNote(text, width) {
  return cut(text, width, NOTE);
}

function cut(text, width, font) {
  if (widthOf(text, font) <= width) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (widthOf(`${text.slice(0, middle)}…`, font) <= width) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}
