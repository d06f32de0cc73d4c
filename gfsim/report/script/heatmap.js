// One weight matrix of the walk, on a canvas.

const SIDE = 34,
  HEAD = 20,
  SHARP = 2;

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
    this.largest = this.array.values.reduce(
      (most, value) => (Number.isFinite(value) ? Math.max(most, Math.abs(value)) : most),
      0,
    );
    this.cell = Math.max(3, Math.min(26, Math.floor(460 / this.width), Math.floor(330 / this.height)));
    const canvasWidth = Math.max(120, SIDE + this.cell * this.width + 4),
      canvasHeight = HEAD + this.cell * this.height + 4;
    this.canvas = element("canvas", { width: SHARP * canvasWidth, height: SHARP * canvasHeight, role: "img" });
    this.canvas.style.width = `${canvasWidth}px`;
    this.wide = canvasWidth;
    this.caption = element("figcaption");
    const cut =
      this.height < matrix.of[0] || this.width < matrix.of[1]
        ? `; its largest ${this.height} rows and ${this.width} columns`
        : "";
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
        if (colours === "log")
          share = share === 0 ? 0 : Math.sign(share) * Math.max(0, 1 + Math.log10(Math.abs(share)) / 6);
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
    const every = Math.max(1, Math.ceil(13 / this.cell)),
      across = Math.max(1, Math.ceil(19 / this.cell));
    pen.textBaseline = "middle";
    for (let row = 0; row < this.height; row += 1) {
      const y = HEAD + (row + 0.5) * this.cell,
        unit = this.matrix.rows[row],
        alive = this.alive(this.place, unit);
      pen.font = `${alive ? "bold " : ""}11px sans-serif`;
      pen.fillStyle = alive ? "#000000" : "#59626e";
      pen.textAlign = "right";
      if (row % every === 0 || (alive && this.cell >= 12)) pen.fillText(String(unit), SIDE - 8, y);
      if (alive) pen.fillRect(SIDE - 5, y - this.cell / 2 + 1, 3, Math.max(1, this.cell - 2));
    }
    pen.textAlign = "center";
    for (let col = 0; col < this.width; col += 1) {
      const x = SIDE + (col + 0.5) * this.cell,
        unit = this.matrix.columns[col],
        alive = this.alive(this.place - 1, unit);
      pen.font = `${alive ? "bold " : ""}11px sans-serif`;
      pen.fillStyle = alive ? "#000000" : "#59626e";
      if (col % across === 0 || (alive && this.cell >= 12)) pen.fillText(String(unit), x, HEAD - 11);
      if (alive) pen.fillRect(x - this.cell / 2 + 1, HEAD - 4, Math.max(1, this.cell - 2), 3);
    }
  }

  say(extra = "") {
    const range = {
      moment: `colours up to ±${shown(this.now)}`,
      run: `colours up to ±${shown(this.largest)}`,
      log: `colours from ±${shown(this.largest * 1e-6)} to ±${shown(this.largest)}`,
    }[this.view.colours];
    this.caption.textContent = `${this.title}; ${range}; largest entry now ${shown(this.now)}${extra}`;
    this.canvas.setAttribute("aria-label", `Heat map of ${this.caption.textContent}`);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(),
      zoom = this.canvas.width / SHARP / box.width;
    const col = Math.floor(((event.clientX - box.left) * zoom - SIDE) / this.cell);
    const row = Math.floor(((event.clientY - box.top) * zoom - HEAD) / this.cell);
    if (row < 0 || col < 0 || row >= this.height || col >= this.width) this.say();
    else this.say(`; row ${this.matrix.rows[row]}, column ${this.matrix.columns[col]}: ${shown(this.entry(row, col))}`);
  }
}
