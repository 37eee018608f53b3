/* How much of a limit is used: pips where they can be counted, else a bar. */

import { el, setAttr, setText } from "../dom.js";

const PIPS = 8;

/** Make one; change it with `setMeter`. */
export function meter() {
  return el(
    "span",
    { class: "meter" },
    el("span", { class: "meter-pips", "aria-hidden": "true" }),
    el("span", { class: "meter-text" }),
  );
}

/** `limit` 0 is unlimited. */
export function setMeter(node, used, limit) {
  const [pips, text] = node.children;
  const wanted = limit > 0 && limit <= PIPS ? limit : 0;
  const bar = limit > PIPS;
  if (node.dataset.shape !== `${wanted}${bar}`) {
    node.dataset.shape = `${wanted}${bar}`;
    pips.replaceChildren(...Array.from({ length: bar ? 1 : wanted }, () => el("i")));
    setAttr(pips, "class", bar ? "meter-bar" : "meter-pips");
  }
  if (bar) pips.firstChild.style.width = `${Math.min(100, (100 * used) / limit)}%`;
  else [...pips.children].forEach((pip, index) => setAttr(pip, "class", index < used ? "full" : null));
  setAttr(node, "class", limit > 0 && used >= limit ? "meter meter-full" : "meter");
  setText(text, limit > 0 ? `${used} of ${limit}` : `${used}`);
  setAttr(node, "title", limit > 0 ? `${used} of ${limit} slots are taken` : `${used} run; there is no limit`);
}
