/* A button that copies a text. */

import { el, setText } from "../dom.js";

/** Make one; `text()` is asked when it is pressed. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "copy", "aria-label": label, title: label }, "Copy");
  button.addEventListener("click", async () => {
    setText(button, (await write(text())) ? "Copied" : "No access");
    setTimeout(() => setText(button, "Copy"), 1600);
  });
  return button;
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return byHand(text); // no clipboard API on plain http beyond loopback
  }
}

function byHand(text) {
  const area = el("textarea", { class: "off-screen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
