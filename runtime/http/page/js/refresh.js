/* Ask again when something has changed: at once the first time, then not more often than a gap, one request at a time. */

export class Refresher {
  #work;
  #gap;
  #every;
  #timer = null;
  #running = false;
  #again = false;
  #last = 0;
  #stopped = false;
  #held = false;
  #asked = null;

  /** `work` is async and handles its own errors; `gap` and `every` are milliseconds; `every` 0 asks only when poked. */
  constructor(work, { gap = 700, every = 0 } = {}) {
    this.#work = work;
    this.#gap = gap;
    this.#every = every;
  }

  /** Something changed. */
  poke() {
    if (this.#stopped) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#plan(Math.max(0, this.#last + this.#gap - performance.now()));
  }

  /** Ask now and wait for the answer. */
  async now() {
    clearTimeout(this.#timer);
    await this.#run();
  }

  /**
   * Do something that ends what is asked for: wait for the answer that is on its way, ask nothing meanwhile, and go on where it did not work.
   * `last` is async and returns whether it worked.
   */
  async before(last) {
    this.#held = true;
    clearTimeout(this.#timer);
    await this.#asked;
    const worked = await last();
    this.#held = worked;
    if (!worked) this.poke();
    return worked;
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #plan(delay) {
    clearTimeout(this.#timer);
    if (!this.#stopped && !this.#held) this.#timer = setTimeout(() => this.#run(), delay);
  }

  async #run() {
    if (this.#stopped || this.#held || this.#running) return;
    this.#running = true;
    this.#again = false;
    try {
      this.#asked = this.#work();
      await this.#asked;
    } finally {
      this.#running = false;
      this.#last = performance.now();
      if (this.#again) this.#plan(this.#gap);
      else if (this.#every) this.#plan(document.hidden ? this.#every * 6 : this.#every);
    }
  }
}
