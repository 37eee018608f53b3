/* An error as a person reads it: type and message first, then where, then the stacks. */

import { el } from "../dom.js";
import { bytes } from "../format.js";
import { copyButton } from "./copy.js";

/** A block of monospaced text with a title, folded where it is long. */
export function textBlock(title, text, { open = true } = {}) {
  const body = el("pre", { class: "block", tabindex: "0", "aria-label": title }, dimmed(text));
  return el(
    "details",
    { class: "text-block", open },
    el("summary", {}, title),
    el(
      "div",
      { class: "json-frame" },
      body,
      copyButton(() => text, `Copy ${title.toLowerCase()}`),
    ),
  );
}

/* Lines that name a file of Python's own library or of an installed package stand back: what is looked for is the user's code. */
function dimmed(text) {
  const lines = text.split("\n");
  if (!lines.some((line) => FRAME.test(line))) return text;
  let library = false;
  return lines.map((line, index) => {
    const frame = FRAME.exec(line);
    library = frame ? LIBRARY.test(frame[1]) : library && /^\s{4}/.test(line); // what stands under a frame is its code
    return el("span", { class: library ? "j-mark" : null }, index < lines.length - 1 ? `${line}\n` : line);
  });
}

const FRAME = /^ {2}File "([^"]+)", line \d+/;
const LIBRARY = /[\\/](lib|Lib)[\\/](python[\d.]+[\\/])?|[\\/](site|dist)-packages[\\/]|^<frozen /;

/** Show an ErrorInfo. */
export function errorView(error) {
  const facts = [];
  if (error.step) facts.push(`in step ${error.step}`);
  if (error.cause) facts.push(`cause: ${error.cause.replaceAll("_", " ")}`);
  if (error.signal) facts.push(`the process died of ${error.signal}`);
  if (error.exit_code !== null && error.exit_code !== undefined) facts.push(`exit code ${error.exit_code}`);
  if (error.max_rss) facts.push(`peak memory ${bytes(error.max_rss)}`);
  if (error.cpu_seconds) facts.push(`${error.cpu_seconds.toFixed(1)} s of CPU`);
  return el(
    "div",
    { class: "error" },
    el("p", { class: "error-line" }, el("strong", {}, error.type), ": ", error.message),
    facts.length ? el("p", { class: "muted" }, facts.join(" · ")) : null,
    error.traceback ? textBlock("Traceback", error.traceback) : null,
    error.stack ? textBlock("Stacks of all threads", error.stack) : null,
    error.output ? textBlock("The end of its output", error.output) : null,
    error.error_output ? textBlock("The end of its error output", error.error_output) : null,
  );
}
