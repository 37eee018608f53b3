/* What is around every view: the name, the ways to go, the search, whether it is live, and what is wrong with the server. */

import { el, setAttr, setText, svg, whenChanged } from "./dom.js";
import { coarse } from "./format.js";
import { go, href } from "./router.js";
import { theme, turn } from "./theme.js";

const PLACES = [
  { name: "now", href: "#/", text: "Now" },
  { name: "instances", href: "#/instances", text: "Instances" },
  { name: "workflows", href: "#/workflows", text: "Workflows" },
  { name: "queues", href: "#/queues", text: "Queues" },
  { name: "machine", href: "#/machine", text: "Machine" },
];

/** What each state of the connection is called, and what it means. */
const CONNECTION = {
  open: ["Live", "Changes arrive as they happen."],
  connecting: ["Connecting", "The stream of events is being opened."],
  lost: ["Disconnected", "What you see may be old. It reconnects by itself and misses nothing."],
  idle: ["Live", ""],
};

export class Frame {
  #links = new Map();
  #state = el("span", { class: "live-word" });
  #live = el(
    "button",
    { type: "button", class: "live" },
    el("span", { class: "live-dot", "aria-hidden": "true" }),
    this.#state,
  );
  #spoken = el("div", { class: "off-screen", role: "status" });
  #search = el("input", {
    type: "search",
    placeholder: "Id, workflow, error …",
    "aria-label": "Search instances",
    autocomplete: "off",
  });
  #theme = el("button", { type: "button", class: "icon-button" });
  #out = el("button", { type: "button", class: "quiet small", hidden: true }, "Sign out");
  #banner = el("div", { class: "banner", role: "alert", hidden: true });
  #retryAt = null;
  #word = "";
  #lost = false;

  constructor({ onReconnect, onHelp, onSignOut }) {
    this.main = el("main", { id: "main", tabindex: "-1" });
    this.#live.addEventListener("click", onReconnect);
    this.#out.addEventListener("click", onSignOut);
    this.#theme.addEventListener("click", () => this.turnTheme());
    this.#nameTheme();
    const help = el(
      "button",
      {
        type: "button",
        class: "icon-button keys-button",
        "aria-label": "Keys",
        title: "Keys (?)",
        on: { click: onHelp },
      },
      "?",
    );
    const find = el(
      "form",
      { class: "search", role: "search", on: { submit: (event) => this.#find(event) } },
      this.#search,
    );
    const links = PLACES.map((place) => {
      const link = el("a", { href: place.href }, place.text);
      this.#links.set(place.name, link);
      return el("li", {}, link);
    });
    const skip = el("a", { class: "skip", href: "#main" }, "To the content");
    skip.addEventListener("click", (event) => {
      event.preventDefault(); // the hash is the address of the view
      this.main.focus();
    });
    document.body.append(
      skip,
      el(
        "header",
        { class: "top" },
        el("a", { class: "brand", href: "#/", "aria-label": "Paddock, now" }, mark(), el("span", {}, "Paddock")),
        el("nav", { "aria-label": "Main" }, el("ul", {}, links)),
        find,
        this.#live,
        help,
        this.#theme,
        this.#out,
      ),
      this.#banner,
      this.#spoken,
      this.main,
    );
    setInterval(() => this.#count(), 1000);
    this.setConnection("idle");
  }

  /** Mark where we are. */
  setPlace(name, title) {
    for (const [one, link] of this.#links) setAttr(link, "aria-current", one === name ? "page" : null);
    document.title = title ? `${title} · Paddock` : "Paddock";
  }

  /** Show how the stream stands; `retryAt` is when a lost one is tried again. */
  setConnection(state, retryAt = null) {
    this.#retryAt = retryAt;
    const [word, meaning] = CONNECTION[state];
    setAttr(this.#live, "class", `live live-${state}`);
    setAttr(this.#live, "title", state === "lost" ? `${meaning} Press to try now.` : meaning);
    this.#word = word;
    this.#count();
    this.#speak(state);
  }

  /* For who does not see it: that it was lost, and that it is back. Not each view's stream, nor the seconds until the next try. */
  #speak(state) {
    if (state === "lost") setText(this.#spoken, CONNECTION.lost[0]);
    else if (state === "open" && this.#lost) setText(this.#spoken, "Live again");
    if (state === "lost" || state === "open") this.#lost = state === "lost";
  }

  #count() {
    const left = this.#retryAt === null ? 0 : this.#retryAt - Date.now();
    setText(this.#state, left > 900 ? `${this.#word}, again in ${coarse(left)}` : this.#word);
  }

  /** Show what is wrong: `problems` maps a part to words; empty hides the banner. */
  setProblems(problems) {
    const entries = Object.entries(problems);
    this.#banner.hidden = entries.length === 0;
    whenChanged(this.#banner, entries, () => [
      el("strong", {}, entries.length === 1 ? "Something is wrong" : `${entries.length} things are wrong`),
      el(
        "ul",
        {},
        entries.map(([part, text]) => el("li", {}, el("b", {}, part), " ", String(text))),
      ),
    ]);
  }

  showSignOut(shown) {
    this.#out.hidden = !shown;
  }

  focusSearch() {
    this.#search.focus();
    this.#search.select();
  }

  turnTheme() {
    turn();
    this.#nameTheme();
  }

  #nameTheme() {
    const next = theme() === "dark" ? "light" : "dark";
    setAttr(this.#theme, "aria-label", `Turn ${next}`);
    setAttr(this.#theme, "title", `Turn ${next} (t)`);
    setText(this.#theme, theme() === "dark" ? "☀" : "☾");
  }

  #find(event) {
    event.preventDefault();
    const text = this.#search.value.trim();
    go(href(["instances"], { q: text }));
    this.#search.blur();
  }
}

/* A fence: two posts, two rails. */
function mark() {
  return svg(
    "svg",
    { class: "mark", viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg("path", {
      d: "M6 4v17M18 4v17M2 9.5h20M2 15.5h20",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 2.4,
      "stroke-linecap": "round",
    }),
  );
}
