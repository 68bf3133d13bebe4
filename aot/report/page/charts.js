// The chart engine of the report's pages: lines and strips on canvas.

"use strict";

const AXIS_MARGIN = { left: 46, right: 26, top: 26, bottom: 42 };
const NO_MARGIN = { left: 0, right: 0, top: 0, bottom: 0 };
const CHART_FONT = "11px system-ui, sans-serif";

aot.Charts = class {
  /**
   * A column of charts. By default they share an x axis and a cursor, which a click or drag moves.
   *
   * parent: the element that receives the charts.
   * xs: x values of the rows, ascending (for clips: times in s); null: each chart has its own x axis and no cursor.
   * onSeek(x): called for a click or drag at x; not used if xs is null.
   */
  constructor(parent, xs = null, onSeek = null) {
    this.parent = parent;
    this.xs = xs;
    this.onSeek = onSeek;
    this.charts = [];
    new ResizeObserver(() => this.draw()).observe(parent);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /**
   * Add a chart: {title, height, alt, paint(context, plot), valueAt(row), axis}.
   *
   * height: px. valueAt(row): text beside the title for the row at the cursor; optional.
   * axis: {range: [low, high], ticks: [[x, label]], label}: the chart's own x axis; required if xs is null.
   */
  add(chart) {
    const canvas = aot.make("canvas", { role: "img", ariaLabel: chart.alt });
    const cursor = aot.make("div", { className: "cursor" });
    const value = aot.make("span", { className: "value numbers" });
    const plot = aot.make("div", { className: this.xs ? "plot seekable" : "plot" }, canvas, this.xs && cursor);
    plot.style.height = `${chart.height}px`;
    const head = aot.make("figcaption", {}, aot.make("strong", {}, chart.title), value);
    this.parent.append(aot.make("figure", { className: "chart" }, head, plot));
    if (this.xs) this.#followPointer(plot);
    this.charts.push({ ...chart, canvas, cursor, value, plot });
  }

  clear() {
    this.parent.replaceChildren();
    this.charts = [];
  }

  /** Move the cursor to x, and show the values of a row. */
  point(x, row) {
    const percent = (100 * (x - this.xs[0])) / this.#span();
    for (const chart of this.charts) {
      chart.cursor.style.left = `${Math.min(Math.max(percent, 0), 100)}%`;
      chart.value.textContent = chart.valueAt ? chart.valueAt(row) : "";
    }
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const style = getComputedStyle(document.documentElement);
    for (const chart of this.charts) {
      const { clientWidth: width, clientHeight: height } = chart.plot;
      if (!width) continue;
      chart.canvas.width = Math.round(width * ratio);
      chart.canvas.height = Math.round(height * ratio);
      const context = chart.canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const margin = chart.axis ? AXIS_MARGIN : NO_MARGIN;
      const [low, high] = chart.axis ? chart.axis.range : [this.xs[0], this.xs[0] + this.#span()];
      const x = (value) => margin.left + ((value - low) / (high - low || 1)) * (width - margin.left - margin.right);
      const plot = { width, height, margin, x, xs: this.xs, style };
      if (chart.axis) paintAxis(context, plot, chart.axis);
      chart.paint(context, plot);
    }
  }

  #span() {
    return Math.max(this.xs.at(-1) - this.xs[0], 1e-9);
  }

  #followPointer(plot) {
    const seek = (event) => {
      const frame = plot.getBoundingClientRect();
      const fraction = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1);
      this.onSeek(this.xs[0] + fraction * this.#span());
    };
    plot.addEventListener("pointerdown", (event) => {
      plot.setPointerCapture(event.pointerId);
      seek(event);
    });
    plot.addEventListener("pointermove", (event) => plot.hasPointerCapture(event.pointerId) && seek(event));
  }
};

/** Paint the x axis of a chart: ticks, their labels, and the label of the axis. */
function paintAxis(context, { width, height, margin, x, style }, axis) {
  const bottom = height - margin.bottom + 0.5;
  context.font = CHART_FONT;
  context.textAlign = "center";
  context.textBaseline = "top";
  context.fillStyle = style.getPropertyValue("--muted");
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  for (const [value, label] of axis.ticks) {
    context.beginPath();
    context.moveTo(x(value), bottom);
    context.lineTo(x(value), bottom + 4);
    context.stroke();
    context.fillText(label, x(value), bottom + 7);
  }
  context.fillText(axis.label, (margin.left + width - margin.right) / 2, height - 15);
}

/**
 * Paint lines over a range of values; null values are gaps.
 *
 * series: [{values, colour, xs, alpha, width, dash, isFaint(row), hasDots, labels, labelsBelow}]; xs: by default the
 * plot's; dash: px, as of canvas; labels: a text for each value. range: [low, high].
 * options: unit: of the two values that label the range; ticks: values with a grid line and a label beside the axis,
 * instead of these two; band: [low, high], a range to emphasise.
 */
aot.paintLines = (context, plot, series, [low, high], { unit = "", ticks = null, band = null } = {}) => {
  const { width, height, margin, x, style } = plot;
  const inset = ticks ? 0 : 4;
  const [top, bottom] = [margin.top + inset, height - margin.bottom - inset];
  const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
  if (band) {
    const [from, to] = band.map((value) => y(Math.min(Math.max(value, low), high)));
    context.fillStyle = style.getPropertyValue("--accent");
    context.globalAlpha = 0.14;
    context.fillRect(margin.left, Math.min(from, to), width - margin.left - margin.right, Math.abs(to - from));
    context.globalAlpha = 1;
  }
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  for (const value of ticks ?? [low, (low + high) / 2, high]) {
    context.beginPath();
    context.moveTo(margin.left, Math.round(y(value)) + 0.5);
    context.lineTo(width - margin.right, Math.round(y(value)) + 0.5);
    context.stroke();
  }
  for (const one of series) paintSeries(context, plot, one, y);
  context.globalAlpha = 1;
  if (ticks) paintTicks(context, plot, ticks, y);
  else paintRange(context, plot, [low, high], unit);
  for (const one of series) paintLabels(context, plot, one, y);
};

function paintSeries(context, plot, { values, colour, xs = plot.xs, alpha = 1, width = 1.5, dash = [], isFaint, hasDots }, y) {
  const { x } = plot;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.setLineDash(dash);
  const strokes = isFaint ? [[alpha, (row) => !isFaint(row)], [alpha * 0.25, isFaint]] : [[alpha, () => true]];
  for (const [opacity, belongs] of strokes) {
    context.globalAlpha = opacity;
    context.beginPath();
    for (let row = 1; row < values.length; row += 1) {
      const [from, to] = [values[row - 1], values[row]];
      if (from === null || to === null || !belongs(row)) continue;
      context.moveTo(x(xs[row - 1]), y(from));
      context.lineTo(x(xs[row]), y(to));
    }
    if (values.length === 1 && values[0] !== null) context.rect(0, y(values[0]) - 1, 4, 2);
    context.stroke();
  }
  context.setLineDash([]);
  if (!hasDots) return;
  context.fillStyle = colour;
  values.forEach((value, row) => {
    if (value === null) return;
    context.beginPath();
    context.arc(x(xs[row]), y(value), 4, 0, 2 * Math.PI);
    context.fill();
  });
}

/** Write the labels of a series above or below its values, on a background that keeps them readable over lines. */
function paintLabels(context, plot, { values, labels, colour, xs = plot.xs, labelsBelow = false }, y) {
  if (!labels) return;
  const { x, style } = plot;
  context.font = CHART_FONT;
  context.textAlign = "center";
  context.textBaseline = "middle";
  values.forEach((value, row) => {
    if (value === null) return;
    const at = y(value) + (labelsBelow ? 14 : -14);
    const textWidth = context.measureText(labels[row]).width;
    context.fillStyle = style.getPropertyValue("--surface");
    context.globalAlpha = 0.75;
    context.fillRect(x(xs[row]) - textWidth / 2 - 2, at - 7, textWidth + 4, 14);
    context.globalAlpha = 1;
    context.fillStyle = colour;
    context.fillText(labels[row], x(xs[row]), at);
  });
}

/** Write the values of grid lines to the left of the plot. */
function paintTicks(context, { margin, style }, ticks, y) {
  context.font = CHART_FONT;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = style.getPropertyValue("--muted");
  for (const value of ticks) context.fillText(String(value), margin.left - 7, y(value));
}

/** Write the highest and the lowest value into the left corners of the plot. */
function paintRange(context, { height, style }, [low, high], unit) {
  context.font = CHART_FONT;
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const [value, at] of [[high, 10], [low, height - 10]]) {
    const text = `${aot.shown(value)}${unit}`;
    const textWidth = context.measureText(text).width;
    context.fillStyle = style.getPropertyValue("--surface");
    context.globalAlpha = 0.75;
    context.fillRect(2, at - 8, textWidth + 6, 16);
    context.globalAlpha = 1;
    context.fillStyle = style.getPropertyValue("--muted");
    context.fillText(text, 5, at);
  }
}

/** Paint one strip per point; opacity is visibility. */
aot.paintStrips = (context, plot, strips) => {
  const { width, height, x, xs } = plot;
  const step = height / Math.max(1, strips.length);
  strips.forEach(({ values, colour }, number) => {
    context.fillStyle = colour;
    values.forEach((value, row) => {
      const left = row ? (x(xs[row - 1]) + x(xs[row])) / 2 : 0;
      const right = row + 1 < xs.length ? (x(xs[row]) + x(xs[row + 1])) / 2 : width;
      context.globalAlpha = 0.06 + 0.94 * value;
      context.fillRect(left, number * step, right - left + 0.3, Math.max(1, step - (step > 3 ? 1 : 0)));
    });
  });
  context.globalAlpha = 1;
};

/** The lowest and the highest value of all lists; [0, 1] if there are none. */
aot.rangeOf = (lists) => {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return Number.isFinite(low) ? [low, high === low ? low + 1 : high] : [0, 1];
};

/** At most 7 round values (multiples of 1, 2 or 5) that enclose the values, as far as `within` allows. */
aot.roundTicks = (values, within = [-Infinity, Infinity]) => {
  const known = values.filter((value) => value !== null);
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  if (high - low < 1e-9) [low, high] = [low - 0.05 * (Math.abs(low) || 1), high + 0.05 * (Math.abs(high) || 1)];
  let exponent = Math.floor(Math.log10(high - low)) - 1;
  let step = null;
  while (step === null) {
    step = [1, 2, 5].map((unit) => unit * 10 ** exponent).find((size) => (high - low) / size <= 6) ?? null;
    exponent += 1;
  }
  const ticks = [];
  for (let n = Math.floor(low / step + 1e-9); n <= Math.ceil(high / step - 1e-9); n += 1) {
    const value = Number((n * step).toFixed(10));
    if (value >= within[0] - 1e-9 && value <= within[1] + 1e-9) ticks.push(value);
  }
  return ticks;
};
