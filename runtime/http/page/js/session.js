/* Getting in: where the server wants a token, it is asked for once and becomes a cookie that no script can read. */

import { el, setText } from "./dom.js";

/** Take a token out of the address (`#token=…`, as `paddock serve --open` has it) before anything else sees it. */
export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  return decodeURIComponent(found[1]);
}

/** Resolve once the server will answer us; asks for a token in `place` where it must. Returns whether one is required. */
export async function enter(api, place, token) {
  const state = await api.get("session");
  if (!state.required) return false;
  if (state.authenticated) return true;
  if (token !== null && (await accepted(api, token)) === null) return true;
  await new Promise((resolve) => place.replaceChildren(door(api, resolve)));
  return true;
}

/* Return null where the token was taken, else why it was not. */
async function accepted(api, token) {
  try {
    await api.post("session", { token });
    return null;
  } catch (error) {
    return error.status === 401 ? "This is not the token of this server." : error.message;
  }
}

function door(api, resolve) {
  const input = el("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
    "aria-describedby": "token-problem",
  });
  const problem = el("p", { id: "token-problem", class: "complaint", role: "alert" });
  const button = el("button", { type: "submit", class: "primary" }, "Enter");
  const form = el(
    "form",
    { class: "door card" },
    el("h1", {}, "This server wants a token"),
    el("p", { class: "muted" }, "It is what was given to ", el("code", {}, "paddock serve --token"), "."),
    el("div", { class: "field" }, el("label", { for: "token" }, "Token"), input, problem),
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const why = await accepted(api, input.value.trim());
    button.disabled = false;
    if (why === null) return resolve();
    setText(problem, why);
    input.select();
  });
  queueMicrotask(() => input.focus());
  return form;
}
