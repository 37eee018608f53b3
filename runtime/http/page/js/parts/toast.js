/* Short words about what was just done, or why it was not. Errors stay until they are dismissed. */

import { el } from "../dom.js";

let place = null;

function region() {
  // two regions: what was done waits for its turn in a screen reader, what failed does not
  place ??= {
    done: el("div", { class: "toasts", role: "status", "aria-live": "polite" }),
    failed: el("div", { class: "toasts", role: "alert" }),
  };
  if (!place.done.isConnected) document.body.append(el("div", { class: "toast-corner" }, place.failed, place.done));
  return place;
}

/** Say that something was done; `link` is `{href, text}`. */
export function done(text, link = null) {
  const node = el(
    "div",
    { class: "toast" },
    el("span", {}, text),
    link ? el("a", { href: link.href }, link.text) : null,
  );
  region().done.append(node);
  setTimeout(() => node.remove(), 6000);
}

/** Say why something was not done. */
export function failed(error) {
  const node = el("div", { class: "toast toast-failed" }, el("span", {}, error.message));
  node.append(
    el(
      "button",
      { type: "button", class: "quiet small", "aria-label": "Dismiss", on: { click: () => node.remove() } },
      "×",
    ),
  );
  const { failed: list } = region();
  list.append(node);
  while (list.children.length > 3) list.firstChild.remove();
}

/** Run an action of a button: disable it meanwhile, and say what went wrong. Returns whether it worked. */
export async function attempt(button, work) {
  const focused = button !== null && button === document.activeElement;
  if (button) button.disabled = true;
  try {
    await work();
    return true;
  } catch (error) {
    failed(error);
    return false;
  } finally {
    if (button) button.disabled = false;
    // a button that is disabled loses it, and one that is of no use any more by then cannot have it back
    if (focused && document.activeElement === document.body) (button.hidden ? besides(button) : button)?.focus();
  }
}

const besides = (button) => button.parentElement?.querySelector("button:not([hidden], :disabled)");
