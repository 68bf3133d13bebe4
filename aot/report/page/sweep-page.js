// The page of a sweep: how quality changes with frame_interval or sample_fps, and what it costs.

"use strict";

const CHART_HEIGHT = 280;
const DASH = [6, 4]; // px
const NUM_COLOURS = 6; // --series-1 to --series-6 of report.css

/** CSS variable of the colour of a series, by its number from 0. */
const seriesColour = (number) => `--series-${(number % NUM_COLOURS) + 1}`;

const fixed = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

aot.showSweep = (sweep) => {
  document.title = `${sweep.title} · aot`;
  aot.byId("name").textContent = sweep.title;
  aot.byId("facts").replaceChildren(
    ...aot.facts([
      [sweep.key, sweep.values.join(", ")],
      ["clips", aot.shown(new Set(sweep.clips.map(({ clip_id: clipId }) => clipId)).size)],
      ["tolerance", String(sweep.tolerance)],
    ]),
  );
  aot.byId("answers").replaceChildren(...sweep.answers.map((answer) => aot.make("li", {}, answer)));
  showLegend(sweep);
  showSweepCharts(sweep);
  showIntervals(sweep);
  showSweptClips(sweep);
};

// Charts ----------------------------------------------------------------------------------------------------------

/** The legend of the charts: clips and their mean, or one colour per group of options. */
function showLegend(sweep) {
  const entry = (colour, kind, text) => {
    const swatch = aot.make("span", { className: `line-swatch ${kind}` });
    swatch.style.setProperty("--swatch", `var(${colour})`);
    return aot.make("li", {}, swatch, aot.make("span", {}, text));
  };
  const entries = hasGroups(sweep)
    ? [
        ...sweep.groups.map((group, number) => entry(seriesColour(number), "", group)),
        ...sweep.measures.map(({ key }, order) => entry("--muted", order ? "dashed" : "", `${key} (quality against time, memory)`)),
      ]
    : [
        entry("--muted", "thin", "one clip"),
        ...sweep.measures.map(({ key }, number) => entry(seriesColour(number), "", `${key}, mean of the clips`)),
        entry("--accent", "band", `within ${sweep.tolerance} of ${sweep.key}=${sweep.values[0]}`),
      ];
  aot.byId("legend").replaceChildren(...entries);
}

const hasGroups = (sweep) => sweep.groups.length > 1;

function showSweepCharts(sweep) {
  const charts = new aot.Charts(aot.byId("charts"));
  sweep.measures.forEach((measure, number) => charts.add(qualityChart(sweep, measure, number)));
  charts.add(costChart(sweep, "time", "seconds for all clips", ({ seconds }) => seconds));
  charts.add(costChart(sweep, "memory", "peak memory per process, MB", ({ peak_memory_mb: megabytes }) => megabytes));
  charts.draw();
}

/** A score over the swept values: its mean, and if no other options were swept, the score of each clip too. */
function qualityChart(sweep, { key, score, source }, number) {
  const place = (value) => sweep.values.indexOf(value);
  const means = sweep.groups.map((group) => sweep.intervals.filter((interval) => interval.group === group));
  const clips = hasGroups(sweep)
    ? []
    : sweep.clips.map(({ runs }) => {
        const own = sweep.values.filter((value) => value in runs);
        return { xs: own.map(place), values: own.map((value) => runs[value].quality[key]) };
      });
  const shown = [...clips.map(({ values }) => values), ...means.map((own) => own.map(({ quality }) => quality[key]))];
  const ticks = aot.roundTicks(shown.flat(), [0, 1]);
  const finest = sweep.intervals[0].quality[key];
  return {
    title: `${key}: ${score} (${source})`,
    height: CHART_HEIGHT,
    alt: `${score} by ${sweep.key}. ${means.map((own) => inWords(sweep, own, key)).join(". ")}`,
    axis: {
      range: [-0.35, sweep.values.length - 0.65],
      ticks: sweep.values.map((value) => [place(value), value]),
      label: sweep.key,
    },
    paint: (context, plot) => {
      const faint = plot.style.getPropertyValue("--muted");
      const series = clips.map((clip) => ({ ...clip, colour: faint, alpha: 0.45, width: 1 }));
      means.forEach((own, group) => {
        const values = own.map(({ quality }) => quality[key]);
        series.push({
          xs: own.map(({ value }) => place(value)),
          values,
          colour: plot.style.getPropertyValue(seriesColour(hasGroups(sweep) ? group : number)),
          width: 2.5,
          hasDots: true,
          labels: hasGroups(sweep) ? null : values.map(fixed),
        });
      });
      const band = hasGroups(sweep) || finest === null ? null : [finest - sweep.tolerance, finest];
      aot.paintLines(context, plot, series, [ticks[0], ticks.at(-1)], { ticks, band });
    },
  };
}

/** The scores over a cost; one colour per measure, or per group if there are several. */
function costChart(sweep, name, label, costOf) {
  const means = new Map(sweep.measures.map(({ key }) => [key, meanOf(sweep.intervals.map(({ quality }) => quality[key]))]));
  const lowest = Math.min(...means.values());
  const lines = sweep.groups.flatMap((group, number) =>
    sweep.measures.map(({ key }, order) => ({
      own: sweep.intervals.filter((interval) => interval.group === group),
      key,
      colour: seriesColour(hasGroups(sweep) ? number : order),
      labelsBelow: sweep.measures.length > 1 && means.get(key) === lowest,
      dash: hasGroups(sweep) && order > 0 ? DASH : [],
    })),
  );
  const ticks = aot.roundTicks(lines.flatMap(({ own, key }) => own.map(({ quality }) => quality[key])), [0, 1]);
  const costTicks = aot.roundTicks([0, ...sweep.intervals.map(costOf)]);
  return {
    title: `Quality against ${name}`,
    height: CHART_HEIGHT,
    alt: `Scores by ${label}. ${sweep.intervals.map((one) => `${sweep.key} ${one.value}: ${aot.shown(costOf(one))}`).join(", ")}`,
    axis: {
      range: [costTicks[0], costTicks.at(-1)],
      ticks: costTicks.map((value) => [value, aot.shown(value)]),
      label: `${label}; points are labelled with ${sweep.key}`,
    },
    paint: (context, plot) => {
      const series = lines.map(({ own, key, colour, labelsBelow, dash }) => ({
        xs: own.map(costOf),
        values: own.map(({ quality }) => quality[key]),
        colour: plot.style.getPropertyValue(colour),
        width: 2,
        hasDots: true,
        labels: own.map(({ value }) => value),
        labelsBelow,
        dash,
      }));
      aot.paintLines(context, plot, series, [ticks[0], ticks.at(-1)], { ticks });
    },
  };
}

function meanOf(values) {
  const known = values.filter((value) => value !== null);
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

function inWords(sweep, intervals, key) {
  const values = intervals.map(({ value, quality }) => `${value}: ${fixed(quality[key])}`);
  return `${hasGroups(sweep) ? `${intervals[0].group}: ` : ""}${values.join(", ")}`;
}

// Tables ----------------------------------------------------------------------------------------------------------

function showIntervals(sweep) {
  const records = sweep.intervals.map((interval) => ({
    ...(hasGroups(sweep) ? { options: interval.group } : {}),
    [sweep.key === "frame_interval" ? "interval" : sweep.key]: interval.value,
    ...Object.fromEntries(sweep.measures.map(({ key, score }) => [`${key}: ${score}`, fixed(interval.quality[key])])),
    seconds: interval.seconds.toFixed(1),
    "peak MB": interval.peak_memory_mb.toFixed(0),
    clips: interval.num_clips,
  }));
  aot.byId("intervals").replaceChildren(aot.records(records));
}

function showSweptClips(sweep) {
  const columns = [{ key: "clip_id", label: "clip", isText: true, width: 200 }];
  if (hasGroups(sweep)) columns.push({ key: "group", label: "options", isText: true, width: 220 });
  const [coarsest, title] = sweep.key === "frame_interval" ? ["largest", "Largest"] : ["smallest", "Smallest"];
  columns.push({ key: "coarsest", label: coarsest, title: `${title} ${sweep.key} within the tolerance`, width: 84 });
  for (const { key, score } of sweep.measures) {
    for (const interval of sweep.values) {
      const title = `${key}: ${score} with ${sweep.key}=${interval}`;
      columns.push({ key: `${key} ${interval}`, label: `${score}, ${interval}`, title, width: 92, measure: key, interval });
    }
  }
  for (const interval of sweep.values) {
    const title = `Seconds with ${sweep.key}=${interval}`;
    columns.push({ key: `seconds ${interval}`, label: `s, ${interval}`, title, width: 70, interval });
  }
  columns.forEach((column, place) => (column.place = place));

  const valueOf = (clip, column) => {
    if (column.interval === undefined) return clip[column.key];
    const run = clip.runs[column.interval];
    return (column.measure ? run?.quality[column.measure] : run?.seconds) ?? null;
  };
  const rows = sweep.clips.map((clip) => Object.assign(columns.map((column) => valueOf(clip, column)), { clip }));
  const cell = (row, column) => {
    const value = row[column.place];
    if (column.isText) return aot.make("bdi", { title: value }, value);
    if (column.key === "coarsest") return String(value);
    if (!column.measure) return value === null ? "" : aot.shown(value);
    const isBeyond = row.clip.runs[column.interval]?.beyond.includes(column.measure);
    return isBeyond ? aot.make("span", { className: "state bad" }, fixed(value)) : fixed(value);
  };
  const sort = { key: "clip_id", isDown: false };
  const table = new aot.Table(aot.byId("table-frame"), aot.byId("table"), columns, cell, (column) => {
    sort.isDown = sort.key === column.key ? !sort.isDown : !column.isText;
    sort.key = column.key;
    refresh();
  });
  const refresh = () => {
    const { place } = columns.find(({ key }) => key === sort.key);
    table.show([...rows].sort(aot.comparison(place, sort.isDown, 0)), sort);
  };
  refresh();
  aot.byId("note").textContent =
    `Scores are computed on every frame of the source: masks are held, tracks are interpolated in time. ` +
    `Highlighted: scores more than ${sweep.tolerance} below ${sweep.key}=${sweep.values[0]}.`;
}

window.addEventListener("load", () => {
  if (aot.byId("name").textContent === "…") {
    aot.byId("name").textContent = "data/sweep.js is missing: run python -m aot.sweep on the sweep's folder again";
  }
});
