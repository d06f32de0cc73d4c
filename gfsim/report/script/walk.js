// The walk through a flow: controls, plots, table of KKT points and heat maps of one <section class="walk">.

const NARROW = 0.04; // of the width of a plot: a stage that is narrower is not seen

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
    this.cosines = this.stages.map((stage) => (stage.cosines === null ? null : unpacked(stage.cosines)));
    this.frame = 0;
    this.stage = this.stageAt(0);
    this.axis = this.readable() ? 0 : this.clocks.length;
    this.colours = "moment";
    this.build(data);
    this.redraw();
    this.go(0, true);
  }

  horizontal() {
    if (this.axis < this.clocks.length)
      return { x: this.clocks[this.axis].values, label: this.clocks[this.axis].label };
    return { x: this.steps, label: "position of the slider" };
  }

  /** Whether every stage is wide enough to be seen on the first clock. */
  readable() {
    const x = this.clocks[0].values,
      whole = x[this.frames - 1] - x[0];
    return this.stages.every((stage) => x[stage.end] - x[stage.begin] > NARROW * whole);
  }

  /** The stage that a frame belongs to; -1 when the flow has none. */
  stageAt(frame) {
    let found = this.stages.length ? 0 : -1;
    this.stages.forEach((stage, k) => {
      if (frame >= stage.begin && (k === 0 || frame >= stage.enter)) found = k;
    });
    return found;
  }

  build(data) {
    this.steps = Float64Array.from({ length: this.frames }, (_, k) => k);
    this.host.append(this.controls(data), this.options);
    const levels = this.stages
      .filter((stage) => stage.saddle)
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
      this.points = element("div", {
        class: "points scroll",
        tabindex: "0",
        role: "region",
        "aria-label": "KKT points",
      });
      this.host.append(this.points);
    }
    const hidden = data.groups.length > 0 && data.groups[0].name.startsWith("hidden") ? data.matrices.length : 0;
    this.maps = data.matrices.map((matrix, k) => new HeatMap(this, matrix, k, hidden));
    this.host.append(
      element(
        "div",
        { class: "maps" },
        element("h3", {}, "Weights"),
        element("p", { class: "soft" }, this.mapWords(hidden)),
        element("div", { class: "mapgrid" }, ...this.maps.map((map) => map.host)),
      ),
    );
  }

  explanation() {
    const stages = this.stages.length
      ? "Grey, numbered: plateaus; dashed: the loss of the saddle behind each. Cosines are those of all small weights " +
        "with the KKT points of the saddle that is being left; those of other stages are faint. "
      : "";
    const events = this.events.length ? `Dotted: ${this.events.map((event) => event.name).join("; ")}. ` : "";
    return (
      `${stages}${events}The slider has ${this.frames} positions, chosen from ${this.recorded} recorded states so ` +
      "that equal steps change the picture about equally."
    );
  }

  mapWords(hidden) {
    const some =
      this.weightFrames.length < this.frames
        ? ` Weights are kept at ${this.weightFrames.length} of the ${this.frames} positions; the nearest is shown.`
        : "";
    const alive = hidden ? " Rows and columns of active neurons have a bar and a bold number." : "";
    return `Blue: negative, white: zero, orange: positive; 2 to 3 digits.${alive}${some}`;
  }

  controls(data) {
    this.slider = element("input", {
      type: "range",
      min: "0",
      max: String(this.frames - 1),
      step: "1",
      value: "0",
      "aria-label": "Moment of the flow",
    });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.now = element("p", { class: "now" });
    this.live = element("p", { class: "hidden", "aria-live": "polite" });
    this.jumps = this.stages.map((stage, k) => {
      const button = element(
        "button",
        { type: "button" },
        `${k + 1}: ${activeWords(stage.active)}, loss ${shown(stage.saddle ? stage.saddle.loss : stage.loss)}`,
      );
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
    this.play = element("button", { type: "button" }, "Play");
    this.play.addEventListener("click", () => this.toggle());
    const axis = this.choice(
      "Horizontal axis",
      [...data.clocks.map((clock) => clock.label), "position of the slider"],
      (k) => {
        this.axis = k;
        this.redraw();
      },
      this.axis,
    );
    const kinds = ["moment", "run", "log"];
    const colours = this.choice(
      "Colours",
      ["by the largest weight now", "by the largest of the whole flow", "logarithmic, six decades"],
      (k) => {
        this.colours = kinds[k];
        this.maps.forEach((map) => map.draw());
      },
    );
    this.options = element(
      "div",
      { class: "bar options" },
      axis,
      colours,
      element(
        "span",
        { class: "ramp-box" },
        "−",
        element("span", { class: "ramp", role: "img", "aria-label": "blue, white, orange" }),
        "+",
      ),
    );
    const walk = this.stages.length ? [this.before, this.play, this.after] : [this.play];
    return element(
      "div",
      { class: "controls", role: "group", "aria-label": "Moment of the flow" },
      this.now,
      this.slider,
      element("div", { class: "bar stages" }, ...walk, ...this.jumps),
      this.live,
    );
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
    const ahead =
      way > 0 ? places.find((place) => place > this.frame) : places.reverse().find((place) => place < this.frame);
    if (ahead !== undefined) this.go(ahead);
  }

  toggle() {
    if (this.timer) return this.halt();
    if (this.frame === this.frames - 1) this.go(0);
    this.play.textContent = "Pause";
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
      // not "disabled", which would take the keyboard's focus away
      const none = (button, is) => button.setAttribute("aria-disabled", String(is));
      none(this.before, !this.stages.some((other) => other.slowest < this.frame));
      none(this.after, !this.stages.some((other) => other.slowest > this.frame));
    }
    clearTimeout(this.silence);
    const speak = () => {
      this.live.textContent = words;
    };
    if (!quiet) this.silence = setTimeout(speak, 500);
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
    else if (stage && this.frame > stage.exit)
      where = `; leaving plateau ${this.stage + 1} (${activeWords(stage.active)})`;
    else if (stage) where = `; on the way to plateau ${this.stage + 1}`;
    return `${clocks}: loss ${shown(this.loss[this.frame])}, |grad L| ${shown(this.speed[this.frame])}${where}`;
  }

  /** Everything that depends on the horizontal axis or on the stage. */
  redraw() {
    this.lossPlot.show([{ values: this.loss, colour: 0, loud: true }]);
    const ever = new Set(
      this.stages
        .filter((stage) => stage.some)
        .flatMap((stage) => stage.active.flatMap((units, l) => units.map((unit) => `${l} ${unit}`))),
    );
    this.normPlot.show(
      this.groups.flatMap((group, l) => {
        const array = unpacked(group.curves);
        return group.units.map((unit, k) => ({
          values: column(array, k),
          colour: l % COLOURS,
          loud: ever.has(`${l} ${unit}`),
        }));
      }),
    );
    this.normPlot.explain(
      this.groups.map((group, l) => [
        l % COLOURS,
        group.units.length < group.of ? `${group.name} (the largest ${group.units.length} of ${group.of})` : group.name,
      ]),
    );
    this.tell();
  }

  /** The KKT points of the stage of the moment: curves, legend and table. */
  tell() {
    if (!this.stages.length) return;
    const stage = this.stages[this.stage];
    if (this.cosinePlot) {
      const curves = this.cosines.flatMap((array, k) =>
        array === null
          ? []
          : this.stages[k].points.map((point, j) => ({
              values: column(array, j),
              colour: k === this.stage ? j % COLOURS : 6,
              loud: point.predicted && k === this.stage,
              faint: k !== this.stage,
            })),
      );
      this.cosinePlot.show(curves.sort((a, b) => Number(b.faint) - Number(a.faint)));
      this.cosinePlot.explain(stage.points.map((point, j) => [j % COLOURS, this.placed(point)]));
    }
    const saddle = stage.saddle
      ? ` near a saddle of loss ${shown(stage.saddle.loss)}, at a distance ${shown(stage.saddle.distance)}`
      : "";
    const remarks = stage.remarks.map((text) => ` ${text.charAt(0).toUpperCase()}${text.slice(1)}.`).join("");
    const what = stage.points.length ? ": KKT points of the NCF there." : ".";
    const caption = element(
      "caption",
      {},
      `Plateau ${this.stage + 1} (${activeWords(stage.active)})${saddle}${what}${remarks}`,
    );
    const head = ["KKT point", "N", "second-order gap", "cosine now", "the NCF flow from here ends at it"];
    this.cosineCells = stage.points.map(() => element("td"));
    const rows = stage.points.map((point, j) =>
      element(
        "tr",
        {},
        element(
          "th",
          { scope: "row" },
          element("span", { class: `swatch k${j % COLOURS}`, "aria-hidden": "true" }),
          this.placed(point),
        ),
        element("td", {}, shown(point.value)),
        element("td", {}, shown(Number(point.gap))),
        this.cosineCells[j],
        element("td", {}, point.predicted ? "yes" : "no"),
      ),
    );
    const table = element("table", { class: "plain" }, caption);
    if (rows.length)
      table.append(
        element("thead", {}, element("tr", {}, ...head.map((word) => element("th", { scope: "col" }, word)))),
        element("tbody", {}, ...rows),
      );
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
