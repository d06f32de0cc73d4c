// The interactive views of gfsim report: one for each <section class="walk">.
// Everything that is shown is made with createElement and textContent; nothing is ever parsed as HTML.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 420, HEIGHT = 250, LEFT = 56, RIGHT = 10, TOP = 20, BOTTOM = 40;
  const COLOURS = 8;
  const NARROW = 0.04; // of the width: what is narrower is not seen

  // -- data ---------------------------------------------------------------------------------------------

  /** A packed array as {shape, at(...)}: flat numbers in row-major order. */
  function unpacked(source) {
    const text = atob(source.data);
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const size = { "<f8": 8, "<f4": 4, bf16: 2 }[source.type];
    const values = new Float64Array(bytes.length / size);
    const scratch = new DataView(new ArrayBuffer(4));
    for (let k = 0; k < values.length; k += 1) {
      if (size === 8) values[k] = view.getFloat64(8 * k, true);
      else if (size === 4) values[k] = view.getFloat32(4 * k, true);
      else {
        scratch.setUint16(2, view.getUint16(2 * k, true), true); // the upper half of a float32
        values[k] = scratch.getFloat32(0, true);
      }
    }
    return { values, shape: source.shape };
  }

  /** Column k of a packed (frames, columns) array. */
  function column(array, k) {
    const width = array.shape[1];
    return Float64Array.from({ length: array.shape[0] }, (_, frame) => array.values[frame * width + k]);
  }

  // -- words --------------------------------------------------------------------------------------------

  function shown(value) {
    if (!Number.isFinite(value)) return String(value);
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }

  const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const power = (exponent) => "10" + Array.from(String(exponent), (digit) => RAISED[digit]).join("");

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes = {}, text = null) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function activeWords(active) {
    const count = active.reduce((sum, units) => sum + units.length, 0);
    if (count === 0) return "origin";
    return active.map((units) => units.length).join("-") + " active";
  }

  // -- axes ---------------------------------------------------------------------------------------------

  function extent(lists) {
    let low = Infinity, high = -Infinity, least = Infinity;
    for (const list of lists) {
      for (const value of list) {
        if (!Number.isFinite(value)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
        if (value > 0) least = Math.min(least, value);
      }
    }
    return { low, high, least };
  }

  /** A scale from values to pixels, logarithmic where positive values span more than a factor of 30. */
  function scaleFor(lists, from, to, { fixed = null, logarithmic = true } = {}) {
    const { low, high, least } = extent(lists);
    if (fixed) return linear(fixed[0], fixed[1], from, to);
    if (!(high > -Infinity)) return linear(0, 1, from, to);
    if (logarithmic && low >= 0 && high > 30 * least) {
      const bottom = Math.log10(Math.max(least, high * 1e-16)) - 0.15, top = Math.log10(high) + 0.15;
      const place = (value) => value > 0 ? from + (Math.log10(value) - bottom) / (top - bottom) * (to - from) : NaN;
      const step = Math.max(1, Math.ceil((top - bottom) / 7));
      const ticks = [];
      for (let e = Math.ceil(bottom); e <= top; e += 1) if (e % step === 0) ticks.push([10 ** e, power(e)]);
      if (ticks.length < 2) return linear(low, high, from, to, 0.05);
      return { place, ticks };
    }
    return linear(low, high, from, to, from > to ? 0.05 : 0);
  }

  function linear(low, high, from, to, margin = 0) {
    let wide = high - low;
    if (!(wide > 0)) wide = Math.abs(high) || 1;
    const bottom = low - margin * wide, top = low + wide + margin * wide;
    const place = (value) => from + (value - bottom) / (top - bottom) * (to - from);
    const raw = (top - bottom) / 6, size = 10 ** Math.floor(Math.log10(raw));
    const step = size * [1, 2, 5, 10].find((factor) => factor * size >= raw);
    const ticks = [];
    for (let k = Math.ceil(bottom / step); k * step <= top + 1e-9 * step; k += 1) {
      ticks.push([k * step, shown(Math.abs(k) < 1e-9 ? 0 : Number((k * step).toPrecision(10)))]);
    }
    return { place, ticks };
  }

  // -- one line plot ------------------------------------------------------------------------------------

  /** Curves over the frames of a view, with its plateaus as bands, its events, and a cursor. */
  class Plot {
    constructor(view, title, { fixed = null, dots = [], levels = [] } = {}) {
      this.view = view;
      this.fixed = fixed;
      this.levels = levels;
      this.curves = [];
      this.svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": title });
      this.legend = element("ul", { class: "legend" });
      this.host = element("div", { class: "panel" }, element("h3", {}, title), this.svg, this.legend);
      this.dots = dots;
    }

    /** Curves are {values, colour, loud, faint}. */
    show(curves) {
      this.curves = curves;
      this.draw();
    }

    draw() {
      const { x, label } = this.view.horizontal();
      const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
      this.x = scaleFor([x], LEFT, right, { logarithmic: false });
      this.y = scaleFor(this.curves.map((curve) => curve.values), bottom, TOP, { fixed: this.fixed });
      const parts = [];
      const line = (kind, x1, y1, x2, y2) => parts.push(drawn("line", { class: kind, x1, y1, x2, y2 }));
      let written = -Infinity;
      this.view.stages.forEach((stage, k) => {
        const from = this.x.place(x[stage.enter]), to = this.x.place(x[stage.exit]);
        parts.push(drawn("rect", { class: "band", x: from, y: TOP, width: Math.max(1, to - from), height: bottom - TOP }));
        const middle = (from + to) / 2;
        if (middle - written < 14) return; // it would overlap the number before
        parts.push(drawn("text", { class: "number", x: middle, y: TOP - 6, "text-anchor": "middle" }, k + 1));
        written = middle;
      });
      for (const [value, text] of this.y.ticks) {
        const y = this.y.place(value);
        line("grid", LEFT, y, right, y);
        parts.push(drawn("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text));
      }
      for (const [value, text] of this.x.ticks) {
        const place = this.x.place(value);
        line("tick", place, bottom, place, bottom + 4);
        parts.push(drawn("text", { x: place, y: bottom + 16, "text-anchor": "middle" }, text));
      }
      line("axis", LEFT, bottom, right, bottom);
      line("axis", LEFT, TOP, LEFT, bottom);
      parts.push(drawn("text", { x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, label));
      for (const level of this.levels) {
        const y = this.y.place(level.value);
        if (y >= TOP && y <= bottom) line("level", this.x.place(x[level.from]), y, this.x.place(x[level.to]), y);
      }
      for (const event of this.view.events) line("event", this.x.place(x[event.frame]), TOP, this.x.place(x[event.frame]), bottom);
      for (const curve of this.curves) {
        const kind = `curve k${curve.colour}${curve.loud ? " loud" : ""}${curve.faint ? " faint" : ""}`;
        parts.push(drawn("path", { class: kind, d: this.path(x, curve.values) }));
      }
      this.cursor = drawn("line", { class: "cursor", y1: TOP, y2: bottom });
      parts.push(this.cursor);
      this.marks = this.dots.map(() => drawn("circle", { class: "dot", r: 4 }));
      parts.push(...this.marks);
      this.svg.replaceChildren(...parts);
      this.move();
    }

    path(x, values) {
      let out = "", pen = false;
      const low = HEIGHT - BOTTOM + 1, high = TOP - 1;
      for (let k = 0; k < values.length; k += 1) {
        const y = this.y.place(values[k]);
        if (Number.isFinite(y)) {
          out += `${pen ? "L" : "M"}${this.x.place(x[k]).toFixed(1)} ${Math.min(low, Math.max(high, y)).toFixed(1)}`;
        }
        pen = Number.isFinite(y);
      }
      return out;
    }

    /** Put the cursor at the frame of the view. */
    move() {
      const place = this.x.place(this.view.horizontal().x[this.view.frame]);
      this.cursor.setAttribute("x1", place);
      this.cursor.setAttribute("x2", place);
      this.marks.forEach((mark, k) => {
        const y = this.y.place(this.dots[k][this.view.frame]);
        mark.setAttribute("cx", place);
        mark.setAttribute("cy", Number.isFinite(y) ? y : -10);
      });
    }

    /** Entries are [colour, text]. */
    explain(entries) {
      this.legend.replaceChildren(...entries.map(([colour, text]) =>
        element("li", {}, element("span", { class: `swatch k${colour}`, "aria-hidden": "true" }), text)));
    }
  }

  // -- one weight matrix --------------------------------------------------------------------------------

  const SIDE = 34, HEAD = 20, SHARP = 2;

  function mixed(share) {
    const [r, g, b] = share < 0 ? [0, 114, 178] : [213, 94, 0];
    const weight = Math.min(1, Math.abs(share));
    return `rgb(${[r, g, b].map((c) => Math.round(255 + (c - 255) * weight)).join(",")})`;
  }

  class HeatMap {
    constructor(view, matrix, place, count) {
      this.view = view;
      this.matrix = matrix;
      this.array = unpacked(matrix.entries);
      [, this.height, this.width] = this.array.shape;
      this.place = place; // 0 for W1
      this.count = count; // matrices of the net, 0 when it has no hidden neurons
      this.largest = this.array.values.reduce((most, value) => Number.isFinite(value) ? Math.max(most, Math.abs(value)) : most, 0);
      this.cell = Math.max(3, Math.min(26, Math.floor(460 / this.width), Math.floor(330 / this.height)));
      const canvasWidth = Math.max(120, SIDE + this.cell * this.width + 4), canvasHeight = HEAD + this.cell * this.height + 4;
      this.canvas = element("canvas", { width: SHARP * canvasWidth, height: SHARP * canvasHeight, role: "img" });
      this.canvas.style.width = `${canvasWidth}px`;
      this.wide = canvasWidth;
      this.caption = element("figcaption");
      const cut = this.height < matrix.of[0] || this.width < matrix.of[1]
        ? `; its largest ${this.height} rows and ${this.width} columns` : "";
      this.title = `${matrix.name}, ${matrix.of[0]} × ${matrix.of[1]}${cut}`;
      this.host = element("figure", { class: "map" }, this.canvas, this.caption);
      this.host.style.width = `${Math.max(this.wide, 224)}px`; // the caption is to fold, the canvas is not
      this.canvas.addEventListener("pointermove", (event) => this.point(event));
      this.canvas.addEventListener("pointerleave", () => this.say());
    }

    entry(row, col) {
      const frame = this.view.nearestWeights[this.view.frame];
      return this.array.values[(frame * this.height + row) * this.width + col];
    }

    /** Whether a row (a column) belongs to a neuron that is active in the stage of the moment, when others are not. */
    alive(layer, unit) {
      const stage = this.view.stages[this.view.stage];
      return Boolean(stage && this.count && stage.some && stage.active[layer] && stage.active[layer].includes(unit));
    }

    draw() {
      const pen = this.canvas.getContext("2d");
      pen.setTransform(SHARP, 0, 0, SHARP, 0, 0);
      pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
      let now = 0;
      for (let row = 0; row < this.height; row += 1) {
        for (let col = 0; col < this.width; col += 1) {
          const size = Math.abs(this.entry(row, col));
          if (Number.isFinite(size)) now = Math.max(now, size);
        }
      }
      this.now = now;
      const colours = this.view.colours;
      const top = (colours === "moment" ? now : this.largest) || 1;
      for (let row = 0; row < this.height; row += 1) {
        for (let col = 0; col < this.width; col += 1) {
          let share = this.entry(row, col) / top;
          if (colours === "log") share = share === 0 ? 0 : Math.sign(share) * Math.max(0, 1 + Math.log10(Math.abs(share)) / 6);
          pen.fillStyle = Number.isFinite(share) ? mixed(share) : "#000000";
          pen.fillRect(SIDE + col * this.cell, HEAD + row * this.cell, this.cell, this.cell);
        }
      }
      pen.strokeStyle = "#8a929c";
      pen.lineWidth = 0.7;
      pen.strokeRect(SIDE, HEAD, this.cell * this.width, this.cell * this.height);
      this.label(pen);
      this.say();
    }

    label(pen) {
      const every = Math.max(1, Math.ceil(13 / this.cell)), across = Math.max(1, Math.ceil(19 / this.cell));
      pen.textBaseline = "middle";
      for (let row = 0; row < this.height; row += 1) {
        const y = HEAD + (row + 0.5) * this.cell, unit = this.matrix.rows[row], alive = this.alive(this.place, unit);
        pen.font = `${alive ? "bold " : ""}11px sans-serif`;
        pen.fillStyle = alive ? "#000000" : "#59626e";
        pen.textAlign = "right";
        if (row % every === 0 || (alive && this.cell >= 12)) pen.fillText(String(unit), SIDE - 8, y);
        if (alive) pen.fillRect(SIDE - 5, y - this.cell / 2 + 1, 3, Math.max(1, this.cell - 2));
      }
      pen.textAlign = "center";
      for (let col = 0; col < this.width; col += 1) {
        const x = SIDE + (col + 0.5) * this.cell, unit = this.matrix.columns[col], alive = this.alive(this.place - 1, unit);
        pen.font = `${alive ? "bold " : ""}11px sans-serif`;
        pen.fillStyle = alive ? "#000000" : "#59626e";
        if (col % across === 0 || (alive && this.cell >= 12)) pen.fillText(String(unit), x, HEAD - 11);
        if (alive) pen.fillRect(x - this.cell / 2 + 1, HEAD - 4, Math.max(1, this.cell - 2), 3);
      }
    }

    say(extra = "") {
      const range = { moment: `colours up to ±${shown(this.now)}`, run: `colours up to ±${shown(this.largest)}`,
        log: `colours from ±${shown(this.largest * 1e-6)} to ±${shown(this.largest)}` }[this.view.colours];
      this.caption.textContent = `${this.title}; ${range}; largest entry now ${shown(this.now)}${extra}`;
      this.canvas.setAttribute("aria-label", `Heat map of ${this.caption.textContent}`);
    }

    point(event) {
      const box = this.canvas.getBoundingClientRect(), zoom = this.canvas.width / SHARP / box.width;
      const col = Math.floor(((event.clientX - box.left) * zoom - SIDE) / this.cell);
      const row = Math.floor(((event.clientY - box.top) * zoom - HEAD) / this.cell);
      if (row < 0 || col < 0 || row >= this.height || col >= this.width) this.say();
      else this.say(`; row ${this.matrix.rows[row]}, column ${this.matrix.columns[col]}: ${shown(this.entry(row, col))}`);
    }
  }

  // -- the view -----------------------------------------------------------------------------------------

  class Walk {
    constructor(host, data) {
      this.host = host;
      this.frames = data.frames;
      this.recorded = data.recorded;
      const neurons = data.groups.reduce((sum, group) => sum + group.of, 0);
      this.stages = data.stages.map((stage) => ({ ...stage, some: stage.active.flat().length < neurons }));
      this.events = data.events;
      this.nearestWeights = data.nearestWeights;
      this.weightFrames = data.weightFrames;
      this.clocks = data.clocks.map((clock) => ({ ...clock, values: unpacked(clock.values).values }));
      this.loss = unpacked(data.loss).values;
      this.speed = unpacked(data.speed).values;
      this.cosines = this.stages.map((stage) => stage.cosines === null ? null : unpacked(stage.cosines));
      this.frame = 0;
      this.stage = this.stageAt(0);
      this.axis = this.readable() ? 0 : this.clocks.length;
      this.colours = "moment";
      this.build(data);
      this.redraw();
      this.go(0, true);
    }

    horizontal() {
      if (this.axis < this.clocks.length) return { x: this.clocks[this.axis].values, label: this.clocks[this.axis].label };
      return { x: this.steps, label: "position of the slider" };
    }

    /** Whether every stage is wide enough to be seen on the first clock. */
    readable() {
      const x = this.clocks[0].values, whole = x[this.frames - 1] - x[0];
      return this.stages.every((stage) => x[stage.end] - x[stage.begin] > NARROW * whole);
    }

    /** The stage that a frame belongs to; -1 when the flow has none. */
    stageAt(frame) {
      let found = this.stages.length ? 0 : -1;
      this.stages.forEach((stage, k) => { if (frame >= stage.begin && (k === 0 || frame >= stage.enter)) found = k; });
      return found;
    }

    build(data) {
      this.steps = Float64Array.from({ length: this.frames }, (_, k) => k);
      this.host.append(this.controls(data), this.options);
      const levels = this.stages.filter((stage) => stage.saddle)
        .map((stage) => ({ value: stage.saddle.loss, from: stage.begin, to: stage.end }));
      this.lossPlot = new Plot(this, `Loss (${data.convention})`, { dots: [this.loss], levels });
      this.normPlot = new Plot(this, data.norms.charAt(0).toUpperCase() + data.norms.slice(1));
      this.plots = [this.lossPlot, this.normPlot];
      this.groups = data.groups;
      if (this.stages.some((stage) => stage.points.length)) {
        this.cosinePlot = new Plot(this, "Cosine to each KKT point", { fixed: [-1, 1] });
        this.plots.push(this.cosinePlot);
      }
      this.host.append(element("div", { class: "plots" }, ...this.plots.map((plot) => plot.host)));
      this.host.append(element("p", { class: "soft" }, this.explanation()));
      if (this.stages.length) {
        this.points = element("div", { class: "points scroll", tabindex: "0", role: "region", "aria-label": "KKT points" });
        this.host.append(this.points);
      }
      const hidden = data.groups.length > 0 && data.groups[0].name.startsWith("hidden") ? data.matrices.length : 0;
      this.maps = data.matrices.map((matrix, k) => new HeatMap(this, matrix, k, hidden));
      this.host.append(element("div", { class: "maps" }, element("h3", {}, "Weights"),
        element("p", { class: "soft" }, this.mapWords(hidden)),
        element("div", { class: "mapgrid" }, ...this.maps.map((map) => map.host))));
    }

    explanation() {
      const stages = this.stages.length
        ? "Grey, numbered: plateaus; dashed: the loss of the saddle behind each. Cosines are those of all small weights " +
        "with the KKT points of the saddle that is being left; those of other stages are faint. " : "";
      const events = this.events.length ? `Dotted: ${this.events.map((event) => event.name).join("; ")}. ` : "";
      return `${stages}${events}The slider has ${this.frames} positions, chosen from ${this.recorded} recorded states so ` +
        "that equal steps change the picture about equally.";
    }

    mapWords(hidden) {
      const some = this.weightFrames.length < this.frames
        ? ` Weights are kept at ${this.weightFrames.length} of the ${this.frames} positions; the nearest is shown.` : "";
      const alive = hidden ? " Rows and columns of active neurons have a bar and a bold number." : "";
      return `Blue: negative, white: zero, orange: positive; 2 to 3 digits.${alive}${some}`;
    }

    controls(data) {
      this.slider = element("input", { type: "range", min: "0", max: String(this.frames - 1), step: "1", value: "0",
        "aria-label": "Moment of the flow" });
      this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
      this.now = element("p", { class: "now" });
      this.live = element("p", { class: "hidden", "aria-live": "polite" });
      this.jumps = this.stages.map((stage, k) => {
        const button = element("button", { type: "button" },
          `${k + 1}: ${activeWords(stage.active)}, loss ${shown(stage.saddle ? stage.saddle.loss : stage.loss)}`);
        button.setAttribute("aria-label", `Go to plateau ${button.textContent}`);
        button.addEventListener("click", () => this.go(stage.slowest));
        return button;
      });
      this.before = element("button", { type: "button" }, "◀ saddle");
      this.after = element("button", { type: "button" }, "saddle ▶");
      this.before.setAttribute("aria-label", "Previous saddle");
      this.after.setAttribute("aria-label", "Next saddle");
      this.before.addEventListener("click", () => this.jump(-1));
      this.after.addEventListener("click", () => this.jump(1));
      this.play = element("button", { type: "button", "aria-pressed": "false" }, "Play");
      this.play.addEventListener("click", () => this.toggle());
      const axis = this.choice("Horizontal axis", [...data.clocks.map((clock) => clock.label), "position of the slider"],
        (k) => { this.axis = k; this.redraw(); }, this.axis);
      const kinds = ["moment", "run", "log"];
      const colours = this.choice("Colours", ["by the largest weight now", "by the largest of the whole flow", "logarithmic, six decades"],
        (k) => { this.colours = kinds[k]; this.maps.forEach((map) => map.draw()); });
      this.options = element("div", { class: "bar options" }, axis, colours, element("span", { class: "ramp-box" },
        "−", element("span", { class: "ramp", role: "img", "aria-label": "blue, white, orange" }), "+"));
      const walk = this.stages.length ? [this.before, this.play, this.after] : [this.play];
      return element("div", { class: "controls", role: "group", "aria-label": "Moment of the flow" },
        this.now, this.slider, element("div", { class: "bar stages" }, ...walk, ...this.jumps),
        this.live);
    }

    choice(label, options, then, chosen = 0) {
      const select = element("select", {}, ...options.map((text, k) => element("option", { value: String(k) }, text)));
      select.value = String(chosen);
      select.addEventListener("change", () => then(Number(select.value)));
      return element("label", {}, label, select);
    }

    /** To the next (+1) or the previous (-1) plateau. */
    jump(way) {
      const places = this.stages.map((stage) => stage.slowest);
      const ahead = way > 0 ? places.find((place) => place > this.frame)
        : places.reverse().find((place) => place < this.frame);
      if (ahead !== undefined) this.go(ahead);
    }

    toggle() {
      if (this.timer) return this.halt();
      if (this.frame === this.frames - 1) this.go(0);
      this.play.textContent = "Pause";
      this.play.setAttribute("aria-pressed", "true");
      this.timer = setInterval(() => {
        if (this.frame >= this.frames - 1) this.halt();
        else this.go(this.frame + 1, true);
      }, 50);
      return undefined;
    }

    halt() {
      clearInterval(this.timer);
      this.timer = null;
      this.play.textContent = "Play";
      this.play.setAttribute("aria-pressed", "false");
    }

    /** Show a frame; `quiet` when the clock, not the reader, asks for it: nothing is announced then. */
    go(frame, quiet = false) {
      if (this.timer && !quiet) this.halt();
      this.frame = Math.max(0, Math.min(this.frames - 1, frame));
      this.slider.value = String(this.frame);
      const stage = this.stageAt(this.frame);
      const entered = stage !== this.stage;
      this.stage = stage;
      if (entered) this.tell();
      this.plots.forEach((plot) => plot.move());
      this.maps.forEach((map) => map.draw());
      this.cells();
      const words = this.words();
      this.now.textContent = words;
      this.slider.setAttribute("aria-valuetext", words);
      this.jumps.forEach((button, k) => button.setAttribute("aria-current", String(this.onPlateau() && k === stage)));
      if (this.stages.length) {
        this.before.disabled = !this.stages.some((other) => other.slowest < this.frame);
        this.after.disabled = !this.stages.some((other) => other.slowest > this.frame);
      }
      clearTimeout(this.silence);
      if (!quiet) this.silence = setTimeout(() => { this.live.textContent = words; }, 500);
    }

    onPlateau() {
      const stage = this.stages[this.stage];
      return Boolean(stage && this.frame >= stage.enter && this.frame <= stage.exit);
    }

    words() {
      const clocks = this.clocks.map((clock) => `${clock.symbol} = ${shown(clock.values[this.frame])}`).join(", ");
      const stage = this.stages[this.stage];
      let where = "";
      if (stage && this.onPlateau()) where = `; on plateau ${this.stage + 1} (${activeWords(stage.active)})`;
      else if (stage && this.frame > stage.exit) where = `; leaving plateau ${this.stage + 1} (${activeWords(stage.active)})`;
      else if (stage) where = `; on the way to plateau ${this.stage + 1}`;
      return `${clocks}: loss ${shown(this.loss[this.frame])}, |grad L| ${shown(this.speed[this.frame])}${where}`;
    }

    /** Everything that depends on the horizontal axis or on the stage. */
    redraw() {
      this.lossPlot.show([{ values: this.loss, colour: 0, loud: true }]);
      const ever = new Set(this.stages.filter((stage) => stage.some).flatMap((stage) => stage.active.flatMap((units, l) => units.map((unit) => `${l} ${unit}`))));
      this.normPlot.show(this.groups.flatMap((group, l) => {
        const array = unpacked(group.curves);
        return group.units.map((unit, k) => ({ values: column(array, k), colour: l % COLOURS, loud: ever.has(`${l} ${unit}`) }));
      }));
      this.normPlot.explain(this.groups.map((group, l) => [l % COLOURS,
        group.units.length < group.of ? `${group.name} (the largest ${group.units.length} of ${group.of})` : group.name]));
      this.tell();
    }

    /** The KKT points of the stage of the moment: curves, legend and table. */
    tell() {
      if (!this.stages.length) return;
      const stage = this.stages[this.stage];
      if (this.cosinePlot) {
        const curves = this.cosines.flatMap((array, k) => array === null ? [] : this.stages[k].points.map((point, j) => ({
          values: column(array, j), colour: k === this.stage ? j % COLOURS : 6, loud: point.predicted && k === this.stage,
          faint: k !== this.stage })));
        this.cosinePlot.show(curves.sort((a, b) => Number(b.faint) - Number(a.faint)));
        this.cosinePlot.explain(stage.points.map((point, j) => [j % COLOURS, this.placed(point)]));
      }
      const saddle = stage.saddle ? ` near a saddle of loss ${shown(stage.saddle.loss)}, at a distance ${shown(stage.saddle.distance)}` : "";
      const remarks = stage.remarks.map((text) => ` ${text.charAt(0).toUpperCase()}${text.slice(1)}.`).join("");
      const what = stage.points.length ? ": KKT points of the NCF there." : ".";
      const caption = element("caption", {}, `Plateau ${this.stage + 1} (${activeWords(stage.active)})${saddle}${what}${remarks}`);
      const head = ["KKT point", "N", "second-order gap", "cosine now", "the NCF flow from here ends at it"];
      this.cosineCells = stage.points.map(() => element("td"));
      const rows = stage.points.map((point, j) => element("tr", {},
        element("th", { scope: "row" }, element("span", { class: `swatch k${j % COLOURS}`, "aria-hidden": "true" }), this.placed(point)),
        element("td", {}, shown(point.value)), element("td", {}, shown(Number(point.gap))), this.cosineCells[j],
        element("td", {}, point.predicted ? "yes" : "no")));
      const table = element("table", { class: "plain" }, caption);
      if (rows.length) table.append(element("thead", {}, element("tr", {}, ...head.map((word) => element("th", { scope: "col" }, word)))),
        element("tbody", {}, ...rows));
      this.points.replaceChildren(table);
      this.cells();
    }

    placed(point) {
      return point.layer === 0 ? "all layers" : `layer ${point.layer}, neuron ${point.unit}`;
    }

    cells() {
      const array = this.cosines[this.stage];
      if (!array) return;
      this.cosineCells.forEach((cell, j) => {
        const value = array.values[this.frame * array.shape[1] + j];
        cell.textContent = Number.isFinite(value) ? value.toFixed(5) : "";
      });
    }
  }

  /** A link such as report.html#flow-2:120 opens the second output's flow at position 120. */
  const link = /^#(flow-\d+):(\d+)$/.exec(location.hash);
  document.querySelectorAll("section.walk").forEach((host) => {
    const source = document.getElementById(host.getAttribute("data-source"));
    const walk = new Walk(host, JSON.parse(source.textContent));
    if (link && link[1] === host.id) {
      walk.go(Number(link[2]));
      host.scrollIntoView();
    }
  });
})();
