/* The beginning: theme, frame, session, and the view that the address names. */

import "./theme.js";
import { Api } from "./api.js";
import { el, setChildren } from "./dom.js";
import { Frame } from "./frame.js";
import { Keys } from "./keys.js";
import { useClock } from "./parts/live_time.js";
import { go, parse, watch } from "./router.js";
import { Refresher } from "./refresh.js";
import { enter, takeToken } from "./session.js";
import { EventStream } from "./stream.js";

/** What the first part of an address opens. Views are loaded when they are first wanted. */
const VIEWS = {
  "": () => import("./views/now.js"),
  instances: () => import("./views/instances.js"),
  instance: () => import("./views/instance.js"),
  workflows: () => import("./views/workflows.js"),
  workflow: () => import("./views/workflow.js"),
  queues: () => import("./views/queues.js"),
  machine: () => import("./views/machine.js"),
};
const PLACE = { "": "now", instance: "instances", workflow: "workflows" };

class App {
  #view = null;
  #name = null;
  #stream = null;
  #turn = 0;
  #address = null;
  #lost = false;
  #health = null;

  constructor() {
    this.api = new Api();
    this.keys = new Keys();
    this.frame = new Frame({
      onReconnect: () => this.#stream?.hurry(),
      onHelp: () => this.keys.help(),
      onSignOut: () => this.#signOut(),
    });
    this.api.onUnauthorized = () => location.reload(); // the cookie is gone: the door is shown again
    useClock(() => this.api.now());
    this.#shortcuts();
  }

  async start() {
    const token = takeToken();
    const required = await this.#entered(token);
    this.frame.showSignOut(required);
    this.#health = new Refresher(() => this.#lookAtHealth(), { every: 10_000 });
    this.#health.now();
    watch((address) => this.#open(address));
  }

  /** Open the stream of the view; the frame shows how it stands. */
  follow(path, options) {
    this.#stream?.close();
    this.#stream = new EventStream(this.api, path, {
      ...options,
      onState: (state, retryAt) => {
        this.frame.setConnection(state, retryAt);
        if (state === "lost" || (state === "open" && this.#lost)) this.#health.poke();
        if (state !== "connecting") this.#lost = state === "lost";
      },
    });
    return this.#stream;
  }

  /* What a view works with. One that was left, loading or asking still, takes nothing from the one that is shown. */
  #lent(turn) {
    const shown = () => turn === this.#turn;
    return {
      api: this.api,
      shown,
      follow: (path, options) => shown() && this.follow(path, options),
      setTitle: (place, title) => shown() && this.frame.setPlace(place, title),
    };
  }

  async #entered(token) {
    for (;;) {
      try {
        return await enter(this.api, this.frame.main, token);
      } catch (error) {
        await this.#asked("The server does not answer", error.message);
      }
    }
  }

  /* Show a problem with a button to try again; resolves when it is pressed. */
  #asked(title, text) {
    return new Promise((resolve) => {
      const button = el("button", { type: "button", class: "primary", on: { click: resolve } }, "Try again");
      setChildren(this.frame.main, el("div", { class: "card door" }, el("h1", {}, title), el("p", {}, text), button));
    });
  }

  async #open(address) {
    const { parts, query } = address;
    this.#address = address;
    const name = parts.length > 1 ? (parts[0] ?? "").replace(/s$/, "") : (parts[0] ?? "");
    const key = [name, ...parts.slice(1, 2)].join("/");
    if (key === this.#name) {
      this.#view?.update?.({ parts, query });
      return;
    }
    const first = this.#name === null;
    this.#close();
    this.#name = key;
    this.#turn += 1;
    const turn = this.#turn;
    const load = VIEWS[name];
    this.frame.setPlace(PLACE[name] ?? name, "");
    if (!load) return this.#unknown();
    try {
      const module = await load();
      const view = await module.open(this.#lent(turn), { parts, query });
      if (turn !== this.#turn) return view.close(); // the person went on meanwhile
      this.#show(view, PLACE[name] ?? name, first);
      if (this.#address !== address) view.update?.(this.#address); // a filter was changed before the view was there
    } catch (error) {
      if (turn === this.#turn) this.#failed(error);
    }
  }

  #show(view, place, first) {
    this.#view = view;
    setChildren(this.frame.main, view.node);
    this.frame.main.dataset.ready = this.#name;
    this.frame.setPlace(place, view.title);
    this.keys.setView(view.keys);
    if (!first) {
      scrollTo(0, 0);
      this.frame.main.focus({ preventScroll: true });
    }
  }

  #close() {
    this.#view?.close();
    this.#view = null;
    this.#stream?.close();
    this.#stream = null;
    this.frame.setConnection("idle");
    this.keys.setView({});
    delete this.frame.main.dataset.ready;
  }

  #failed(error) {
    const again = el("button", { type: "button", class: "primary", on: { click: () => this.#again() } }, "Try again");
    const title = error.status === 404 ? "There is no such thing" : "This could not be shown";
    setChildren(
      this.frame.main,
      el(
        "div",
        { class: "card door" },
        el("h1", {}, title),
        el("p", {}, error.message),
        el("div", { class: "form-buttons" }, again, el("a", { href: "#/" }, "To the overview")),
      ),
    );
    this.frame.main.dataset.ready = "problem";
  }

  #unknown() {
    this.#failed({ status: 404, message: "Nothing has this address." });
  }

  #again() {
    this.#name = null;
    this.#open(parse(location.hash));
  }

  async #lookAtHealth() {
    try {
      const health = await this.api.get("health");
      this.frame.setProblems(health.problems);
    } catch (error) {
      this.frame.setProblems(error.body?.problems ?? { server: error.message });
    }
  }

  async #signOut() {
    await this.api.delete("session");
    location.reload();
  }

  #shortcuts() {
    const places = { n: "#/", i: "#/instances", w: "#/workflows", q: "#/queues", m: "#/machine" };
    for (const [key, address] of Object.entries(places)) this.keys.on(`g ${key}`, () => go(address));
    this.keys.on("/", () => this.frame.focusSearch());
    this.keys.on("t", () => this.frame.turnTheme());
    this.keys.on("?", () => this.keys.help());
  }
}

new App().start();
