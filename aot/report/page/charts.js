// Curves over the clip's time, drawn on canvas; one line through all of them marks the present frame.

"use strict";

aot.Charts = class {
  /** times: of the rows that charts show, in s; onSeek(time) is called for a click. */
  constructor(parent, times, onSeek) {
    this.parent = parent;
    this.times = times;
    this.span = Math.max(times.at(-1) - times[0], 1e-9);
    this.onSeek = onSeek;
    this.charts = [];
    new ResizeObserver(() => this.draw()).observe(parent);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Add a chart: {title, unit, height, alt, paint(context, plot), tell(row)}. */
  add(chart) {
    const canvas = aot.make("canvas", { role: "img", ariaLabel: chart.alt });
    const cursor = aot.make("div", { className: "cursor" });
    const value = aot.make("span", { className: "value numbers" });
    const plot = aot.make("div", { className: "plot" }, canvas, cursor);
    plot.style.height = `${chart.height}px`;
    const head = aot.make("figcaption", {}, aot.make("strong", {}, chart.title), value);
    this.parent.append(aot.make("figure", { className: "chart" }, head, plot));
    const seek = (event) => {
      const frame = plot.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1);
      this.onSeek(this.times[0] + share * this.span);
    };
    plot.addEventListener("pointerdown", (event) => {
      plot.setPointerCapture(event.pointerId);
      seek(event);
    });
    plot.addEventListener("pointermove", (event) => plot.hasPointerCapture(event.pointerId) && seek(event));
    this.charts.push({ ...chart, canvas, cursor, value, plot });
  }

  clear() {
    this.parent.replaceChildren();
    this.charts = [];
  }

  /** Move the line to a time, and tell the values of the row there. */
  point(time, row) {
    const share = (100 * (time - this.times[0])) / this.span;
    for (const chart of this.charts) {
      chart.cursor.style.left = `${Math.min(Math.max(share, 0), 100)}%`;
      chart.value.textContent = chart.tell ? chart.tell(row) : "";
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
      const x = (time) => ((time - this.times[0]) / this.span) * width;
      chart.paint(context, { width, height, x, times: this.times, style });
    }
  }
};

/** Paint lines: series [{values, colour, alpha, width, isFaint(row)}] between two values; gaps stay gaps. */
aot.paintLines = (context, plot, series, [low, high], unit) => {
  const { width, height, x, times, style } = plot;
  const inset = 4;
  const range = high - low || 1;
  const y = (value) => height - inset - ((value - low) / range) * (height - 2 * inset);
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  for (const value of [low, (low + high) / 2, high]) {
    context.beginPath();
    context.moveTo(0, Math.round(y(value)) + 0.5);
    context.lineTo(width, Math.round(y(value)) + 0.5);
    context.stroke();
  }
  for (const { values, colour, alpha = 1, width: lineWidth = 1.5, isFaint } of series) {
    context.strokeStyle = colour;
    context.lineWidth = lineWidth;
    context.lineJoin = "round";
    const strokes = isFaint ? [[alpha, (row) => !isFaint(row)], [alpha * 0.25, isFaint]] : [[alpha, () => true]];
    for (const [opacity, belongs] of strokes) {
      context.globalAlpha = opacity;
      context.beginPath();
      for (let row = 1; row < values.length; row += 1) {
        const [from, to] = [values[row - 1], values[row]];
        if (from === null || to === null || !belongs(row)) continue;
        context.moveTo(x(times[row - 1]), y(from));
        context.lineTo(x(times[row]), y(to));
      }
      if (values.length === 1 && values[0] !== null) context.rect(0, y(values[0]) - 1, 4, 2);
      context.stroke();
    }
  }
  context.globalAlpha = 1;
  context.font = "11px system-ui, sans-serif";
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
};

/** Paint one strip a point: the more surely it is seen, the fuller its colour. */
aot.paintStrips = (context, plot, strips) => {
  const { width, height, x, times } = plot;
  const step = height / Math.max(1, strips.length);
  strips.forEach(({ values, colour }, number) => {
    context.fillStyle = colour;
    values.forEach((value, row) => {
      const left = row ? (x(times[row - 1]) + x(times[row])) / 2 : 0;
      const right = row + 1 < times.length ? (x(times[row]) + x(times[row + 1])) / 2 : width;
      context.globalAlpha = 0.06 + 0.94 * value;
      context.fillRect(left, number * step, right - left + 0.3, Math.max(1, step - (step > 3 ? 1 : 0)));
    });
  });
  context.globalAlpha = 1;
};

/** The lowest and the highest of all values, with a little room; [0, 1] where there are none. */
aot.rangeOf = (lists, atLeast = []) => {
  let [low, high] = [Infinity, -Infinity];
  for (const list of [...lists, atLeast]) {
    for (const value of list) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return Number.isFinite(low) ? [low, high === low ? low + 1 : high] : [0, 1];
};
