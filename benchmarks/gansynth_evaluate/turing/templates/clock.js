// How long an image was looked at: from when it was drawn to the answer, without the time in which
// the page was hidden. After a reload, or in a browser opened again, it goes on counting.
class Clock {
  #key;
  #seen = 0;
  #hidden = 0;
  #since = 0;
  #running = false;
  #wasHidden = false;

  constructor(key) {
    this.#key = key;
    document.addEventListener("visibilitychange", () => this.#turn());
    addEventListener("pagehide", () => this.#keep());
    setInterval(() => this.#keep(), 500); // a browser that is killed does not tell
  }

  /** The image of this name has been drawn just now. */
  start(image) {
    const kept = read(this.#key);
    const same = kept !== null && kept.image === image;
    this.#seen = same ? kept.seen : 0;
    this.#hidden = same ? kept.hidden : 0;
    this.image = image;
    this.#since = performance.now();
    this.#wasHidden = document.hidden;
    this.#running = true;
  }

  /** Milliseconds that it was seen, and that it was hidden. */
  read() {
    this.#turn();
    return { ms: this.#seen, hidden_ms: this.#hidden };
  }

  /** It has been answered. */
  stop() {
    this.#running = false;
    try { localStorage.removeItem(this.#key); } catch { /* no storage: nothing to forget */ }
  }

  #turn() {
    if (!this.#running) return;
    // Called when visibility has changed already: what has passed was of the other kind.
    const now = performance.now();
    if (this.#wasHidden) this.#hidden += now - this.#since;
    else this.#seen += now - this.#since;
    this.#since = now;
    this.#wasHidden = document.hidden;
    this.#keep();
  }

  #keep() {
    if (!this.#running) return;
    const now = performance.now();
    const kept = { image: this.image, seen: this.#seen, hidden: this.#hidden };
    kept[this.#wasHidden ? "hidden" : "seen"] += now - this.#since;
    try { localStorage.setItem(this.#key, JSON.stringify(kept)); } catch { /* see stop */ }
  }
}

function read(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}
