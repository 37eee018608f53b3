/* Light or dark: as the system has it, until the person says otherwise. */

const KEY = "paddock.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function chosen() {
  const found = localStorage.getItem(KEY);
  return found === "light" || found === "dark" ? found : null;
}

/** The theme in force. */
export function theme() {
  return chosen() ?? (system.matches ? "dark" : "light");
}

function apply() {
  document.documentElement.dataset.theme = theme();
}

/** Turn to the other one; where that is the system's own, follow the system again. */
export function turn() {
  const wanted = theme() === "dark" ? "light" : "dark";
  if (wanted === (system.matches ? "dark" : "light")) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, wanted);
  apply();
  return wanted;
}

system.addEventListener("change", apply);
apply();
