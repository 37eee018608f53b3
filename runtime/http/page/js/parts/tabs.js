/* Tabs, as the ARIA pattern has them: one stop in the focus order, arrows between them. */

import { el, setAttr, setText, uniqueId } from "../dom.js";

/** Make tabs of `[{name, title, panel}]`; `onChange(name)` is told. Returns `{node, show(name), mark(name, text)}`. */
export function tabs(list, { label, onChange = () => {} }) {
  const made = list.map(({ name, title, panel }) => {
    const id = uniqueId("tab");
    const count = el("span", { class: "tab-count" });
    const button = el(
      "button",
      { type: "button", role: "tab", id, class: "tab", "aria-controls": `${id}-panel` },
      title,
      count,
    );
    const frame = el("div", { role: "tabpanel", id: `${id}-panel`, "aria-labelledby": id, class: "tab-panel" }, panel);
    return { name, button, frame, count };
  });
  const show = (name, { focus = false } = {}) => {
    for (const one of made) {
      const on = one.name === name;
      setAttr(one.button, "aria-selected", on ? "true" : "false");
      one.button.tabIndex = on ? 0 : -1;
      one.frame.hidden = !on;
      if (on && focus) one.button.focus();
    }
    onChange(name);
  };
  made.forEach((one, index) => {
    one.button.addEventListener("click", () => show(one.name));
    one.button.addEventListener("keydown", (event) => {
      const last = made.length - 1;
      const to = { ArrowRight: index + 1, ArrowLeft: index + last, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(made[to % made.length].name, { focus: true });
    });
  });
  const node = el(
    "div",
    { class: "tabs" },
    el(
      "div",
      { role: "tablist", "aria-label": label, class: "tab-list" },
      made.map((one) => one.button),
    ),
    made.map((one) => one.frame),
  );
  const mark = (name, text) => setText(made.find((one) => one.name === name).count, text ?? "");
  return { node, show, mark };
}
