/* Dialogs, on the browser's own <dialog>: it keeps the focus inside and gives it back, where what had it is still there. */

import { el, uniqueId } from "../dom.js";

/** Open a dialog; `fill(close)` returns its content. Resolves with what `close` was given, undefined where it was dismissed. */
export function openDialog(title, fill, { wide = false } = {}) {
  return new Promise((resolve) => {
    const heading = uniqueId("dialog");
    const dialog = el("dialog", { class: wide ? "dialog wide" : "dialog", "aria-labelledby": heading });
    let answer;
    const close = (value) => {
      answer = value;
      dialog.close();
    };
    const quit = el(
      "button",
      { type: "button", class: "quiet close", "aria-label": "Close", on: { click: () => close() } },
      "×",
    );
    dialog.append(
      el("header", { class: "dialog-head" }, el("h2", { id: heading }, title), quit),
      el("div", { class: "dialog-body" }, fill(close)),
    );
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true });
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (
      dialog.querySelector("[autofocus]") ??
      dialog.querySelector(".dialog-body input, .dialog-body textarea, .dialog-body select, .dialog-body button")
    )?.focus();
  });
}

/** Ask before something that cannot be taken back; true for yes. */
export async function confirmed(title, text, yes, tone = "danger") {
  const answer = await openDialog(title, (close) => [
    el("p", {}, text),
    el(
      "div",
      { class: "form-buttons" },
      el("button", { type: "button", class: tone, autofocus: true, on: { click: () => close(true) } }, yes),
      el("button", { type: "button", class: "quiet", on: { click: () => close(false) } }, "Leave it"),
    ),
  ]);
  return answer === true;
}
