// One line plot of the walk.

const WIDTH = 420,
  HEIGHT = 250,
  LEFT = 56,
  RIGHT = 10,
  TOP = 20,
  BOTTOM = 40;

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
    const right = WIDTH - RIGHT,
      bottom = HEIGHT - BOTTOM;
    this.x = scaleFor([x], LEFT, right, { logarithmic: false });
    this.y = scaleFor(
      this.curves.map((curve) => curve.values),
      bottom,
      TOP,
      { fixed: this.fixed },
    );
    const parts = [];
    const line = (kind, x1, y1, x2, y2) => parts.push(drawn("line", { class: kind, x1, y1, x2, y2 }));
    let written = -Infinity;
    this.view.stages.forEach((stage, k) => {
      const from = this.x.place(x[stage.enter]),
        to = this.x.place(x[stage.exit]);
      parts.push(
        drawn("rect", { class: "band", x: from, y: TOP, width: Math.max(1, to - from), height: bottom - TOP }),
      );
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
    for (const event of this.view.events)
      line("event", this.x.place(x[event.frame]), TOP, this.x.place(x[event.frame]), bottom);
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
    let out = "",
      pen = false;
    const low = HEIGHT - BOTTOM + 1,
      high = TOP - 1;
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
    this.legend.replaceChildren(
      ...entries.map(([colour, text]) =>
        element("li", {}, element("span", { class: `swatch k${colour}`, "aria-hidden": "true" }), text),
      ),
    );
  }
}
