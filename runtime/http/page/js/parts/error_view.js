/* An error as a person reads it: type and message first, then where, then the stacks. */

import { el } from "../dom.js";
import { bytes } from "../format.js";
import { copyButton } from "./copy.js";

/** A block of monospaced text with a title; what is copied is the whole text. */
export function textBlock(title, text, { open = true } = {}) {
  const body = el("pre", { class: "block", tabindex: "0", "aria-label": title }, dimmed(ownFrames(text)));
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

/** The innermost line of the user's code in stacks: `{file, line, name}`; null where there is none. */
export function culprit(stacks) {
  for (const line of (stacks ?? "").split("\n")) {
    const found = /^ {2}File "([^"]+)", line (\d+) in (\S+)/.exec(line);
    if (found && !LIBRARY.test(found[1]) && !OURS.test(found[1]))
      return { file: found[1].split(/[\\/]/).at(-1), line: found[2], name: found[3] };
  }
  return null;
}

/* A traceback begins with the way through Paddock to the handler, the same every time: what is looked for stands below it. */
function ownFrames(text) {
  return text.replace(/^Traceback \(most recent call last\):\n((?: {2}.*\n)+)/gm, (whole, body) => {
    const frames = body.split(/(?=^ {2}File ")/m);
    const others = frames.findIndex((frame) => !isForeign(frame));
    const last = frames.slice(0, others < 0 ? frames.length : others).findLastIndex((frame) => OURS.test(fileOf(frame)));
    if (last < 0 || last === frames.length - 1) return whole;
    return `Traceback (most recent call last):\n  … ${last + 1} frames of Paddock\n${frames.slice(last + 1).join("")}`;
  });
}

const fileOf = (frame) => FRAME.exec(frame)?.[1] ?? "";
const isForeign = (frame) => OURS.test(fileOf(frame)) || LIBRARY.test(fileOf(frame));

/* Lines that name a file of Python's own library or of an installed package stand back: what is looked for is the user's code. */
function dimmed(text) {
  const lines = text.split("\n");
  if (!lines.some((line) => FRAME.test(line))) return text;
  let library = false;
  return lines.map((line, index) => {
    const frame = FRAME.exec(line);
    library = frame ? isForeign(line) : library && /^\s{4}/.test(line); // what stands under a frame is its code
    return el("span", { class: library ? "j-mark" : null }, index < lines.length - 1 ? `${line}\n` : line);
  });
}

const FRAME = /^ {2}File "([^"]+)", line \d+/;
const OURS = /[\\/](paddock[\\/])?runtime[\\/](base|store|engine|authoring|child|server|testing)[\\/]\w+\.py$/;
const LIBRARY = /[\\/](lib|Lib)[\\/](python[\d.]+[\\/])?|[\\/](site|dist)-packages[\\/]|^<frozen /;

/** Show an ErrorInfo; `open` unfolds its stacks. */
export function errorView(error, { open = true } = {}) {
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
    error.traceback ? textBlock("Traceback", error.traceback, { open }) : null,
    error.stack ? textBlock("Stacks of all threads", error.stack, { open }) : null,
    error.output ? textBlock("The end of its output", error.output, { open }) : null,
    error.error_output ? textBlock("The end of its error output", error.error_output, { open }) : null,
  );
}
