/* What the threads of a running instance are doing just now; taken again at a press. */

import { path } from "../api.js";
import { el, setText } from "../dom.js";
import { clock, toMs } from "../format.js";
import { textBlock } from "./error_view.js";
import { openDialog } from "./dialog.js";
import { attempt } from "./toast.js";

/** Take the stacks and show them. */
export async function showStacks(api, id, button) {
  let taken = null;
  const take = async () => (taken = await api.get(path("instances", id, "stacks")));
  if (!(await attempt(button, take))) return;
  await openDialog(
    "What it is doing",
    (close) => {
      const facts = el("p", { class: "muted" });
      const place = el("div");
      const show = () => {
        setText(facts, `Process ${taken.pid} at ${clock(toMs(taken.taken_at))}. It was not disturbed.`);
        place.replaceChildren(textBlock("Stacks of all threads", taken.stacks));
      };
      const again = el("button", { type: "button", class: "primary" }, "Take again");
      again.addEventListener("click", async () => (await attempt(again, take)) && show());
      show();
      const quit = el("button", { type: "button", class: "quiet", on: { click: () => close() } }, "Close");
      return [facts, place, el("div", { class: "form-buttons" }, again, quit)];
    },
    { wide: true },
  );
}
