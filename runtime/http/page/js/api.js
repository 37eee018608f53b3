/* Requests to the server. Addresses are relative to the page, so any mount prefix works; no other host is ever asked. */

/** What the server refused, in its own words (problem+json). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? null;
    this.title = body.title ?? "";
    this.body = body;
    this.fields = Array.isArray(body.errors) ? body.errors : [];
  }
}

/** The server could not be reached. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. Is it running?");
  }
}

export class Api {
  #skew = 0;

  constructor() {
    this.base = new URL("api/", document.baseURI);
    this.onUnauthorized = () => {};
  }

  /** The server's time in milliseconds: a browser's clock that is off would make every "3 s ago" a lie. */
  now() {
    return Date.now() + this.#skew;
  }

  url(path, query = {}) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, String(value));
    }
    return url;
  }

  /** Fetch and return the response; raises `Problem` or `Unreachable`. */
  async fetch(path, { query, method = "GET", body, headers = {}, signal } = {}) {
    const sent = body === undefined ? headers : { ...headers, "Content-Type": "application/json" };
    let response;
    try {
      response = await fetch(this.url(path, query), {
        method,
        headers: sent,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: "no-store",
        credentials: "same-origin",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable();
    }
    this.#compare(response.headers.get("Date"));
    if (response.ok) return response;
    const problem = new Problem(response.status, await readProblem(response));
    if (response.status === 401 && path !== "session") this.onUnauthorized();
    throw problem;
  }

  async get(path, query, signal) {
    const response = await this.fetch(path, { query, headers: { Accept: "application/json" }, signal });
    return response.json();
  }

  async send(method, path, body) {
    const response = await this.fetch(path, { method, body, headers: { Accept: "application/json" } });
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  }

  post(path, body) {
    return this.send("POST", path, body);
  }

  delete(path) {
    return this.send("DELETE", path);
  }

  #compare(header) {
    const server = header === null ? NaN : Date.parse(header);
    if (Number.isNaN(server)) return;
    const skew = server + 500 - Date.now(); // the header has whole seconds
    this.#skew = Math.abs(skew) > 2500 ? skew : 0;
  }
}

async function readProblem(response) {
  try {
    return await response.json();
  } catch {
    return {}; // a proxy in between may answer with anything
  }
}

/** A path of segments, each escaped. */
export function path(...segments) {
  return segments.map(encodeURIComponent).join("/");
}
