/*
 * A stream of server-sent events that comes back by itself.
 *
 * Read with fetch, not EventSource: a token belongs into a header, not into an address that is logged. The cursor is the id of the last
 * event that was handed on; a new connection asks from there with Last-Event-ID, so nothing is missed and nothing comes twice.
 */

import { SseParser } from "./sse.js";

const SILENCE = 45_000; // the server speaks at least every 15 s
const FIRST_DELAY = 400;
const LONGEST_DELAY = 10_000;

export class EventStream {
  #api;
  #path;
  #query;
  #cursor;
  #abort = null;
  #closed = false;
  #wake = null;
  #silence = null;
  #hide = null;

  /** `onEvents(list)` gets what one read brought; `onState(state, retryAt)` gets "connecting", "open", "lost". */
  constructor(api, path, { query = {}, after = null, onEvents, onState = () => {} }) {
    this.#api = api;
    this.#path = path;
    this.#query = query;
    this.#cursor = after;
    this.onEvents = onEvents;
    this.onState = onState;
    this.visible = () => this.#visibility();
    document.addEventListener("visibilitychange", this.visible);
    this.#run();
  }

  close() {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.visible);
    clearTimeout(this.#hide);
    this.#abort?.abort();
    this.#wake?.();
  }

  /** Try again now. */
  hurry() {
    this.#wake?.();
  }

  async #run() {
    let delay = FIRST_DELAY;
    while (!this.#closed) {
      this.onState("connecting");
      let refused = false;
      try {
        await this.#read(() => (delay = FIRST_DELAY));
      } catch (error) {
        refused = error.status >= 400 && error.status < 500;
      }
      if (this.#closed || refused) break; // a refusal stays one: the view has said why
      this.onState("lost", Date.now() + delay);
      await this.#pause(delay);
      delay = Math.min(LONGEST_DELAY, delay * 2) * (0.8 + Math.random() * 0.4);
    }
  }

  #pause(delay) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).finally(() => (this.#wake = null));
  }

  async #read(opened) {
    this.#abort = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.#cursor !== null) headers["Last-Event-ID"] = String(this.#cursor);
    this.#listen();
    try {
      const response = await this.#api.fetch(this.#path, { query: this.#query, headers, signal: this.#abort.signal });
      this.onState("open");
      opened();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new SseParser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.#listen();
        this.#hand(parser.feed(value));
      }
    } finally {
      clearTimeout(this.#silence);
    }
  }

  #hand(events) {
    if (this.#closed || !events.length) return;
    const read = [];
    for (const event of events) {
      if (event.id !== null) this.#cursor = event.id;
      read.push(JSON.parse(event.data));
    }
    this.onEvents(read);
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#abort?.abort(), SILENCE);
  }

  /* A browser has six connections to a host: tabs in the background give theirs back. */
  #visibility() {
    clearTimeout(this.#hide);
    if (document.hidden) {
      this.#hide = setTimeout(() => this.#abort?.abort(), 60_000);
    } else {
      this.hurry();
    }
  }
}
