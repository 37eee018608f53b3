/* Many alike are one stop in the order of the Tab key; arrows go from one to the next and choose it. */

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/** Let arrows move among what `selector` finds in `container`. Returns `settle(current)`, to be called when there are others. */
export function roving(container, selector) {
  const all = () => [...container.querySelectorAll(selector)];
  const settle = (current = null) => {
    const list = all();
    const stop = current ?? list.find((one) => one.tabIndex === 0) ?? list[0];
    for (const one of list) {
      const wanted = one === stop ? "0" : "-1";
      if (one.getAttribute("tabindex") !== wanted) one.setAttribute("tabindex", wanted);
    }
  };
  container.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const list = all();
    const at = list.indexOf(event.target);
    if (step === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = list[Math.max(0, Math.min(list.length - 1, at + step))];
    settle(next);
    next.focus();
    next.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });
  return settle;
}
