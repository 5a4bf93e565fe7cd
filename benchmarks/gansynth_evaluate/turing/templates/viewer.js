// Shows one image of bytes: slices of each channel side by side, brightness, contrast, zoom.
const WHOLE = { level: 127.5, width: 255 };
const LABEL = 26;
const NAMES = ["axial", "coronal", "sagittal"];

class Viewer {
  #bytes = null;
  #window = { ...WHOLE };
  #zoom = 1;
  #at = { x: 0, y: 0 };
  #plane = 0;
  #slice = 0;
  #frames = [];
  #lut = new Uint32Array(256);
  #pointers = new Map();
  #left = 0;
  #several = false;

  /**
   * @param root element that gets a canvas for each channel
   * @param about channels, size (D, H, W) and spacing of the images
   * @param changed called after slice, window, plane or zoom have changed
   */
  constructor(root, about, changed) {
    this.root = root;
    this.size = about.size;
    this.spacing = about.spacing;
    this.changed = changed;
    this.mode = this.deep ? "slice" : "window";
    root.replaceChildren();
    this.#several = about.channels.length > 1;
    for (const name of about.channels) {
      const [panel, frame, canvas, label] = ["div", "div", "canvas", "p"].map((tag) => document.createElement(tag));
      frame.className = "frame";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", this.#several ? name : "image");
      label.textContent = name;
      label.setAttribute("aria-hidden", "true");
      frame.append(canvas);
      panel.append(frame, ...(this.#several ? [label] : []));
      root.append(panel);
      this.#frames.push({ frame, canvas });
    }
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      root.addEventListener(kind, (event) => this.#pointer(kind, event));
    }
    addEventListener("resize", () => this.fit());
    this.reset();
  }

  get deep() { return this.size[0] > 1; }
  get slices() { return this.size[this.#plane]; }
  get slice() { return this.#slice; }
  get plane() { return this.#plane; }
  get level() { return this.#window.level; }
  get width() { return this.#window.width; }
  get zoom() { return this.#zoom; }
  get planeName() { return NAMES[this.#plane]; }

  /** Show an image; the window stays, the slice is the middle one. */
  show(bytes) {
    this.#bytes = bytes;
    this.#slice = this.slices >> 1;
    this.#place(1, 0, 0);
    this.#draw();
    this.changed();
  }

  /** Nothing is shown. */
  clear() {
    this.#bytes = null;
    for (const { canvas } of this.#frames) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  /** Everything as it was in the beginning. */
  reset() {
    this.#window = { ...WHOLE };
    this.#plane = 0;
    this.#slice = this.slices >> 1;
    this.#place(1, 0, 0);
    this.fit();
    this.#draw();
    this.changed();
  }

  setSlice(index) {
    const slice = clamp(Math.round(index), 0, this.slices - 1);
    if (slice === this.#slice) return;
    this.#slice = slice;
    this.#draw();
    this.changed();
  }

  setWindow(level, width) {
    this.#window = { level: clamp(level, 0, 255), width: clamp(width, 1, 1020) };
    this.#draw();
    this.changed();
  }

  setPlane(plane) {
    this.#plane = this.deep ? clamp(plane, 0, 2) : 0;
    this.#slice = this.slices >> 1;
    this.#place(1, 0, 0);
    this.fit();
    this.#draw();
    this.changed();
  }

  setZoom(zoom, x = 0.5, y = 0.5) {
    const wanted = clamp(zoom, 1, 16);
    const ratio = wanted / this.#zoom;
    // What is at (x, y) of the frame stays there.
    this.#place(wanted, x - (x - this.#at.x) * ratio, y - (y - this.#at.y) * ratio);
    this.changed();
  }

  #place(zoom, x, y) {
    this.#zoom = zoom;
    this.#at = { x: clamp(x, 1 - zoom, 0), y: clamp(y, 1 - zoom, 0) };
    for (const { canvas } of this.#frames) {
      canvas.style.transform = `translate(${this.#at.x * 100}%, ${this.#at.y * 100}%) scale(${zoom})`;
    }
  }

  // Rows and columns of a slice: their number, and millimetres.
  get #sides() {
    const [rows, columns] = [0, 1, 2].filter((axis) => axis !== this.#plane);
    return {
      rows: this.size[rows], columns: this.size[columns],
      high: this.size[rows] * this.spacing[rows], wide: this.size[columns] * this.spacing[columns],
    };
  }

  /** As large as it can be: in so many columns of frames that they are largest. */
  fit() {
    const { rows, columns, high, wide } = this.#sides;
    const room = this.root.parentElement.clientWidth;
    if (!room) return;
    const narrow = innerWidth < 960;
    const tall = Math.max(160, innerHeight * (narrow ? 0.6 : 0.82) - (this.deep ? 48 : 0));
    const label = this.#several ? LABEL : 0;
    let best = { width: 0, across: 1 };
    for (let across = 1; across <= this.#frames.length; across += 1) {
      const down = Math.ceil(this.#frames.length / across);
      const width = Math.floor(Math.min((room - 4 * (across - 1)) / across, ((tall - 4 * (down - 1)) / down - label) * (wide / high)));
      if (width > best.width) best = { width, across };
    }
    this.root.style.gridTemplateColumns = `repeat(${best.across}, ${best.width}px)`;
    for (const { frame, canvas } of this.#frames) {
      frame.style.width = `${best.width}px`;
      frame.style.height = `${Math.round(best.width * high / wide)}px`;
      if (canvas.width !== columns || canvas.height !== rows) {
        canvas.width = columns;
        canvas.height = rows;
        this.#left = 0;
      }
    }
    this.#draw();
  }

  #draw() {
    if (!this.#bytes) return;
    const { level, width } = this.#window;
    for (let value = 0; value < 256; value += 1) {
      const grey = clamp(Math.round(((value - level) / width + 0.5) * 255), 0, 255);
      this.#lut[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    const [depth, high, wide] = this.size;
    const steps = [high * wide, wide, 1];
    const [down, across] = [0, 1, 2].filter((axis) => axis !== this.#plane).map((axis) => steps[axis]);
    const { rows, columns } = this.#sides;
    this.#frames.forEach(({ canvas }, channel) => {
      if (canvas.width !== columns || canvas.height !== rows) { canvas.width = columns; canvas.height = rows; }
      const first = channel * depth * high * wide + this.#slice * steps[this.#plane];
      const data = new ImageData(columns, rows);
      const pixels = new Uint32Array(data.data.buffer);
      for (let row = 0; row < rows; row += 1) {
        for (let column = 0; column < columns; column += 1) {
          pixels[row * columns + column] = this.#lut[this.#bytes[first + row * down + column * across]];
        }
      }
      canvas.getContext("2d").putImageData(data, 0, 0);
    });
  }

  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey || !this.deep) {
      const [x, y] = this.#within(event);
      this.setZoom(this.#zoom * Math.exp(-event.deltaY / 300), x, y);
      return;
    }
    // A notch of a wheel is about 100; a touchpad sends many small ones.
    this.#left += event.deltaMode === 0 ? event.deltaY / 50 : event.deltaY / 2;
    const whole = Math.trunc(this.#left);
    this.#left -= whole;
    if (whole) this.setSlice(this.#slice + whole);
  }

  // Where in its frame a pointer is, as shares of it.
  #within(event) {
    const box = (event.target.closest(".frame") ?? this.#frames[0].frame).getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #pointer(kind, event) {
    if (kind === "pointerdown") {
      if (event.button > 0) return;
      this.root.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      this.#left = 0;
      return;
    }
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    if (kind !== "pointermove") { this.#pointers.delete(event.pointerId); return; }
    const other = [...this.#pointers.values()].find((one) => one.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (other) this.#pinch(before, event, other);
    else this.#drag(event.clientX - before.clientX, event.clientY - before.clientY);
  }

  #pinch(before, now, other) {
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    if (apart(before) < 1) return;
    const box = this.#frames[0].frame.getBoundingClientRect();
    const x = ((now.clientX + other.clientX) / 2 - box.left) / box.width;
    const y = ((now.clientY + other.clientY) / 2 - box.top) / box.height;
    this.setZoom(this.#zoom * apart(now) / apart(before), clamp(x, 0, 1), clamp(y, 0, 1));
  }

  #drag(dx, dy) {
    const box = this.#frames[0].frame.getBoundingClientRect();
    if (this.mode === "move") {
      this.#place(this.#zoom, this.#at.x + dx / box.width, this.#at.y + dy / box.height);
    } else if (this.mode === "slice" && this.deep) {
      this.#left += dy / box.height * this.slices;
      const whole = Math.trunc(this.#left);
      this.#left -= whole;
      if (whole) this.setSlice(this.#slice + whole);
    } else {
      // As on a workstation: up is brighter, to the right less contrast.
      this.setWindow(this.level + dy / box.height * 255, this.width + dx / box.width * 255);
    }
  }
}

function clamp(value, low, high) { return Math.min(high, Math.max(low, value)); }
