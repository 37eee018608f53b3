/* Server-sent events, text in, events out. Knows no network. */

/** Reads a stream of text in any pieces; `feed` returns the events that are complete. */
export class SseParser {
  #rest = "";
  #data = [];
  #id = null;
  #name = "message";

  feed(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line) {
    if (line === "") return this.#flush();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "event") this.#name = value;
    return null;
  }

  #flush() {
    const event = this.#data.length ? { id: this.#id, name: this.#name, data: this.#data.join("\n") } : null;
    this.#data = [];
    this.#name = "message";
    return event;
  }
}
