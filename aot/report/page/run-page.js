// The first page of a run's report.

"use strict";

const STATES = ["done", "partial", "failed", "pending", "no prompt"];
const LABELS = {
  clip_id: ["clip", "", 220],
  state: ["state", "", 96],
  objects: ["objects", "", 76],
  points: ["points", "Number of tracked points", 72],
  frames: ["frames", "Number of kept frames", 74],
  source_frames: ["of", "Number of source frames", 66],
  frame_interval: ["interval", "Every n-th frame is kept", 80],
  rung: ["rung", "Rung of the ladder of memory plans that succeeded", 64],
  attempts: ["attempts", "Number of attempts until the clip was finished", 84],
  visible: ["visible", "Fraction of points that are visible", 76],
  in_mask: ["in mask", "Fraction of visible points inside the mask of their object", 82],
  mask_stability: ["stability", "Overlap of masks on consecutive kept frames", 88],
  return_error_px: ["return px", "Median distance between query points and their tracks followed backwards", 92],
  coverage: ["coverage", "Mean fraction of the masks that valid points cover", 84],
  ended: ["ended", "Fraction of tracks that drift off their object", 70],
  added: ["added", "Fraction of tracks that were added where the object had become uncovered", 70],
  seconds: ["seconds", "", 80],
  frames_per_second: ["frames/s", "", 86],
  peak_memory_mb: ["peak MB", "Peak memory", 86],
  peak_device_memory_mb: ["device MB", "Peak memory on the device", 92],
  worker: ["worker", "The worker that computed the result", 200],
  worker_busy: ["busy", "Fraction of the worker's time in which the models computed", 64],
  decoder: ["decoder", "What decoded the video", 80],
  decoder_fallback: ["why", "Why decord did not decode the video", 220],
  error: ["error", "", 360],
};
const TEXT_COLUMNS = new Set(["clip_id", "state", "decoder", "decoder_fallback", "error", "worker"]);
const SHOWN_IF_ANY = new Set(["decoder", "decoder_fallback", "error", "worker"]);
// Too many for the table of the clips; each clip's page has its own.
const STAGE_SUFFIX = "_seconds";
const STATE_KEY = "aot-report";
const SCORES = ["J", "F", "AJ", "OA", "PCK"];
const COMPARISON = /^(.+?)(<=|>=|<|>|=)(-?\d+(?:\.\d+)?)$/;
// Values that say that masks or tracks may be wrong, which is worth a look. The limits are rules of thumb.
const DOUBTS = [
  ["mask_stability", "<", 0.5, "masks change much from frame to frame"],
  ["in_mask", "<", 0.5, "visible points lie outside the masks"],
  ["visible", "<", 0.2, "few points are visible"],
  ["coverage", "<", 0.3, "valid points cover little of the masks"],
  ["ended", ">", 0.5, "tracks drift off"],
];
const MOST_DOUBTFUL = 8;

aot.showRun = (run) => {
  const isFirst = (key) => key === "clip_id" || key === "state" ? 0 : SCORES.includes(key) ? 1 : 2;
  const columns = run.columns
    .map((key, place) => ({ key, place, isText: TEXT_COLUMNS.has(key), ...labelled(key) }))
    .filter(({ key }) => !key.endsWith(STAGE_SUFFIX))
    .filter(({ key, place }) => TEXT_COLUMNS.has(key) || run.rows.some((row) => row[place] !== null))
    .filter(({ key, place }) => !SHOWN_IF_ANY.has(key) || run.rows.some((row) => row[place] !== null))
    .sort((one, other) => isFirst(one.key) - isFirst(other.key));
  const placeOf = Object.fromEntries(run.columns.map((key, place) => [key, place]));
  const pages = new Set(run.pages);
  const view = { ...{ sort: { key: "clip_id", isDown: false }, state: "", text: "" }, ...remembered(run.folder) };
  if (!(view.sort.key in placeOf)) view.sort = { key: "clip_id", isDown: false };

  showHead(run, placeOf);
  showFailures(run, pages);
  showDoubtful(run, placeOf, pages);
  showOrigin(run);

  const cell = (row, column) => {
    const value = row[column.place];
    if (column.key === "clip_id") {
      const name = aot.make("bdi", {}, value);
      return pages.has(value) ? aot.make("a", { href: aot.clipPage(value), title: aot.printable(value) }, name) : name;
    }
    if (column.key === "state") return aot.state(value);
    if (column.key === "error" || column.key === "decoder_fallback") return value ? aot.make("span", { title: value }, value) : "";
    const isRaised =
      (column.key === "attempts" && value > 1) || (column.key === "frame_interval" && value > run.frame_interval);
    if (isRaised) return aot.make("span", { className: "state warn" }, aot.shown(value));
    return value === null ? "" : aot.shown(value);
  };
  const table = new aot.Table(aot.byId("table-frame"), aot.byId("table"), columns, cell, (column) => {
    const isSame = view.sort.key === column.key;
    view.sort = { key: column.key, isDown: isSame ? !view.sort.isDown : !column.isText };
    refresh();
  });

  const texts = run.rows.map((row) => row.filter((value) => value !== null).join(" ").toLowerCase());
  const buttons = stateButtons(run, placeOf, view, () => refresh());

  function refresh() {
    const tests = view.text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => testOf(word, run.columns));
    const shown = run.rows.filter(
      (row, number) =>
        (!view.state || row[placeOf.state] === view.state) && tests.every((test) => test(row, texts[number])),
    );
    shown.sort(aot.comparison(placeOf[view.sort.key], view.sort.isDown, placeOf.clip_id));
    table.show(shown, view.sort);
    aot.byId("count").textContent =
      shown.length === run.rows.length ? aot.count(shown.length, "clip") : `${aot.shown(shown.length)} of ${aot.count(run.rows.length, "clip")}`;
    aot.byId("empty").hidden = shown.length > 0;
    for (const [state, button] of buttons) button.ariaPressed = String(view.state === state);
    remember(run.folder, view);
    aot.rememberOrder(shown.map((row) => row[placeOf.clip_id]).filter((id) => pages.has(id)));
  }

  addEventListener("beforeprint", () => table.printAll(true));
  addEventListener("afterprint", () => table.printAll(false));

  const search = aot.byId("search");
  search.value = view.text;
  search.addEventListener("input", () => {
    view.text = search.value;
    aot.byId("table-frame").scrollTop = 0;
    refresh();
  });
  refresh();
};

/** A word of the search as a test of a row: `visible<0.3` compares a column, by its key or label; others are found in the text. */
function testOf(word, columns) {
  const [, name, operator, number] = word.match(COMPARISON) ?? [];
  const place = columns.findIndex((key) => [key, labelled(key).label.replaceAll(" ", "_")].some((each) => each.toLowerCase() === name));
  if (place < 0) return (_, text) => text.includes(word);
  return (row) => typeof row[place] === "number" && compares(row[place], operator, Number(number));
}

function compares(value, operator, limit) {
  if (operator === "<") return value < limit;
  if (operator === ">") return value > limit;
  if (operator === "<=") return value <= limit;
  return operator === ">=" ? value >= limit : value === limit;
}

/** The finished clips with the most doubtful values, and these values. */
function showDoubtful(run, placeOf, pages) {
  const found = run.rows
    .map((row) => {
      const doubts = DOUBTS.filter(([key, operator, limit]) => {
        const value = key in placeOf ? row[placeOf[key]] : null;
        return typeof value === "number" && compares(value, operator, limit);
      });
      return { row, doubts };
    })
    .filter(({ doubts }) => doubts.length)
    .sort((one, other) => other.doubts.length - one.doubts.length);
  aot.byId("doubtful").hidden = !found.length;
  const entries = found.slice(0, MOST_DOUBTFUL).map(({ row, doubts }) => {
    const id = row[placeOf.clip_id];
    const name = aot.make("bdi", {}, id);
    const words = doubts.map(([key, , , text]) => `${text} (${labelled(key).label} ${aot.shown(row[placeOf[key]])})`).join("; ");
    return aot.make("li", {}, pages.has(id) ? aot.make("a", { href: aot.clipPage(id) }, name) : name, aot.make("span", { className: "message" }, words));
  });
  if (found.length > MOST_DOUBTFUL) {
    const limits = DOUBTS.map(([key, operator, limit]) => `${key}${operator}${limit}`).join(", ");
    entries.push(aot.make("li", { className: "muted" }, `and ${aot.shown(found.length - MOST_DOUBTFUL)} more: search for one of ${limits}`));
  }
  aot.byId("doubtful-clips").replaceChildren(...entries);
}

function labelled(key) {
  const [label, title, width] = LABELS[key] ?? [key.replaceAll("_", " "), "", Math.max(64, 9 * key.length + 28)];
  return { label, title, width };
}

function stateButtons(run, placeOf, view, onChange) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const row of run.rows) counts.set(row[placeOf.state], (counts.get(row[placeOf.state]) ?? 0) + 1);
  const shown = [...counts].filter(([, count]) => count > 0);
  const buttons = new Map();
  for (const [state, count] of shown) {
    const button = aot.make("button", { type: "button" }, aot.state(state), aot.make("span", { className: "numbers" }, aot.shown(count)));
    button.addEventListener("click", () => {
      view.state = view.state === state ? "" : state;
      aot.byId("table-frame").scrollTop = 0;
      onChange();
    });
    buttons.set(state, button);
  }
  if (view.state && !buttons.has(view.state)) view.state = "";
  aot.byId("states").replaceChildren(...buttons.values());
  return buttons;
}

function showHead(run, placeOf) {
  const sum = (key) => (key in placeOf ? run.rows.reduce((total, row) => total + (row[placeOf[key]] ?? 0), 0) : 0);
  const choices = run.choices ?? {};
  document.title = `${run.name} · aot`;
  aot.byId("dataset").textContent = `Report · ${choices.dataset ?? ""}`;
  aot.byId("name").textContent = run.name;
  aot.byId("facts").replaceChildren(
    ...aot.facts([
      ["masks", choices.segmenter],
      ["tracks", choices.tracker],
      run.sample_fps ? ["frames per second", String(run.sample_fps)] : ["frame interval", aot.shown(run.frame_interval)],
      ["clips", aot.shown(run.rows.length)],
      ["frames", aot.shown(sum("frames"))],
      ["points", aot.shown(sum("points"))],
      ["time", duration(sum("seconds"))],
      ["models computed", percent(run.busy)],
    ]),
  );
}

/** The fraction of a time as text; undefined if it is not known. */
function percent(fraction) {
  return fraction === null || fraction === undefined ? undefined : `${Math.round(100 * fraction)} % of the workers' time`;
}

function duration(seconds) {
  if (seconds < 90) return `${aot.shown(seconds)} s`;
  if (seconds < 5400) return `${aot.shown(seconds / 60)} min`;
  return `${aot.shown(seconds / 3600)} h`;
}

function showFailures(run, pages) {
  aot.byId("failures").hidden = !run.failures.length;
  aot.byId("failure-groups").replaceChildren(
    ...run.failures.map((group) => {
      const title = group.class === "objects" ? "some objects failed" : group.class;
      const details = aot.details(
        aot.make("span", {}, aot.make("span", { className: "state bad" }, title), ` ${aot.count(group.clips.length, "clip")}`),
        group.retry && aot.make("p", { className: "muted" }, "Retry:"),
        group.retry && aot.command(group.retry),
        ...byMessage(group.clips).map((failures) => failuresWithOneMessage(failures, pages)),
      );
      details.open = run.failures.length <= 3;
      return details;
    }),
  );
}

/** Groups of failures whose messages differ only in the name of the clip; the largest first. */
function byMessage(failures) {
  const groups = new Map();
  for (const failure of failures) {
    const text = failure.message.replaceAll(failure.clip_id, "…");
    groups.set(text, [...(groups.get(text) ?? []), failure]);
  }
  return [...groups.values()].sort((one, other) => other.length - one.length);
}

function failuresWithOneMessage(failures, pages) {
  const most = 50;
  const entries = failures.slice(0, most).map((failure) => {
    const name = aot.make("bdi", {}, failure.clip_id);
    const clip = pages.has(failure.clip_id) ? aot.make("a", { href: aot.clipPage(failure.clip_id) }, name) : name;
    const log = failure.log?.href
      ? aot.make("a", { href: failure.log.href, className: "log" }, "log")
      : failure.log && aot.make("span", { className: "log muted" }, failure.log.name);
    return aot.make("li", {}, clip, failures.length === 1 ? aot.make("span", { className: "message" }, failure.message) : null, log);
  });
  if (failures.length > most) {
    entries.push(aot.make("li", { className: "muted" }, `and ${aot.shown(failures.length - most)} more: select "failed" below`));
  }
  const list = aot.make("ul", { className: "failed" }, ...entries);
  if (failures.length === 1) return list;
  return aot.details(aot.make("span", {}, `${aot.count(failures.length, "clip")}: `, aot.make("span", { className: "message" }, failures[0].message)), list);
}

function showOrigin(run) {
  const parts = [
    aot.make(
      "dl",
      { className: "facts" },
      ...aot.facts([
        ["folder", run.folder],
        ["created", run.created],
        ["updated", run.updated],
        ["configuration", run.config_hash?.slice(0, 16)],
        ["report by aot", run.aot],
      ]),
    ),
    aot.command(run.command),
  ];
  if (run.weights.length) parts.push(aot.make("h3", {}, "Checkpoints and their licences"), aot.records(run.weights));
  const versions = Object.entries(run.versions ?? {}).map(([name, version]) => ({ package: name, version }));
  parts.push(aot.details("Time of the stages", aot.records(stages(run))));
  parts.push(aot.details("Workers", aot.records(run.workers)));
  parts.push(aot.details("Versions", aot.records(versions)));
  parts.push(aot.details("Configuration", aot.make("pre", { tabIndex: 0 }, JSON.stringify(run.config, null, 2))));
  aot.byId("origin").replaceChildren(...parts);
}

/** For each stage that took any time: its total, and the clip in which it was longest. */
function stages(run) {
  const ofClip = run.columns.indexOf("clip_id");
  return run.columns.flatMap((key, place) => {
    const rows = run.rows.filter((row) => row[place] !== null);
    if (!key.endsWith(STAGE_SUFFIX) || !rows.length) return [];
    const longest = rows.reduce((one, other) => (other[place] > one[place] ? other : one));
    const seconds = rows.reduce((total, row) => total + row[place], 0);
    return [{
      stage: key.slice(0, -STAGE_SUFFIX.length).replaceAll("_", " "),
      seconds,
      "per clip": seconds / rows.length,
      longest: longest[place],
      "in clip": longest[ofClip],
    }];
  });
}

/** The last state of the table, so that it is the same after returning from a clip's page. */
function remembered(folder) {
  try {
    return JSON.parse(sessionStorage.getItem(`${STATE_KEY} ${folder}`)) ?? {};
  } catch {
    return {};
  }
}

function remember(folder, view) {
  try {
    sessionStorage.setItem(`${STATE_KEY} ${folder}`, JSON.stringify(view));
  } catch {
    // without storage, the table starts in its initial state
  }
}

window.addEventListener("load", () => {
  if (aot.byId("name").textContent === "…") {
    aot.byId("name").textContent = "data/run.js is missing: write the report again with python -m aot.report RUN";
  }
});
