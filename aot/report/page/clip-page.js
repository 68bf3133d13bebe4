// The page of a clip: the overlay video, charts on the same time axis, objects, prompts and provenance.

"use strict";

const clipId = new URLSearchParams(location.search).get("clip") ?? "";
const AREA_HEIGHT = 84;
const STRIP_PX = 5;
// The video's clock counts in 1/90000 s, the times of the frames are rounded to 0.1 ms.
const CLOCK_SLACK = 1e-3;

/** Load the data of the clip, a script; its name may contain anything except a path out of its folder. */
function begin() {
  const parts = clipId.split("/");
  aot.byId("name").textContent = aot.printable(clipId) || "No clip selected";
  document.title = `${aot.printable(clipId)} · aot`;
  if (!clipId || parts.some((part) => ["", ".", ".."].includes(part))) {
    showProblem("There is no such clip: select one in the table of clips.");
    return;
  }
  load(aot.fileAddress(`data/clips/${clipId}.js`), () =>
    showProblem("The report has no data for this clip. Run python -m aot.report RUN to add clips that have finished since it was written."),
  );
  load("data/pages.js", () => {});
}

function load(address, onError) {
  const script = aot.make("script", { src: address });
  script.addEventListener("error", onError);
  document.head.append(script);
}

function showProblem(text) {
  const failure = aot.byId("failure");
  failure.hidden = false;
  failure.replaceChildren(aot.make("p", {}, text));
}

aot.showPages = (pages) => {
  const order = aot.rememberedOrder();
  const clips = order?.includes(clipId) ? order : pages;
  const place = clips.indexOf(clipId);
  for (const [id, other] of [["before", clips[place - 1]], ["after", clips[place + 1]]]) {
    const link = aot.byId(id);
    link.hidden = place < 0 || other === undefined;
    if (link.hidden) continue;
    link.href = aot.clipPage(other);
    link.title = `${aot.printable(other)} (${id === "after" ? "N" : "P"})`;
  }
};

aot.showClip = (clip) => {
  if (clip.failure) {
    showFailure(clip.failure);
    return;
  }
  aot.byId("clip").hidden = false;
  const { facts } = clip;
  const isSquare = (facts.pixel_aspect_ratio ?? "1:1") === "1:1";
  const isThinned = facts.frame_interval > facts.frame_interval_requested;
  aot.byId("facts").replaceChildren(
    ...aot.facts([
      ["size", `${facts.width} × ${facts.height}${isSquare ? "" : `, pixels of ${facts.pixel_aspect_ratio}`}`],
      ...(facts.stream ? [["video stream", aot.shown(facts.stream)]] : []),
      ["frames", `${aot.shown(clip.frames.length)} of ${aot.shown(facts.num_source_frames)}`],
      ["interval", isThinned ? aot.make("span", { className: "state warn" }, `${facts.frame_interval}, requested ${facts.frame_interval_requested}`) : aot.shown(facts.frame_interval)],
      ...(facts.sample_fps ? [["frames per second", String(facts.sample_fps)]] : []),
      ["attempts", aot.shown(facts.attempts?.length ?? 1)],
      ["notes", facts.notes?.join("; ")],
      ["device", facts.device],
      ...(facts.decoder ? [["decoder", facts.decoder_fallback ? `${facts.decoder}: ${facts.decoder_fallback}` : facts.decoder]] : []),
      ["time", `${aot.shown(Object.values(facts.seconds ?? {}).reduce((sum, value) => sum + value, 0))} s`],
      ["peak memory", `${aot.shown(facts.peak_memory_bytes / 2 ** 20)} MB`],
    ]),
  );
  showObjects(clip);
  showPromptFrames(clip);
  showFlow(clip);
  showClipOrigin(clip);
  const charts = showCharts(clip, (time) => player.goToTime(time));
  const player = new Player(clip, (row) => charts.point(clip.times[row], row));
};

// Video -------------------------------------------------------------------------------------------------------------

class Player {
  constructor(clip, onRow) {
    this.clip = clip;
    this.onRow = onRow;
    this.row = 0;
    this.video = aot.byId("video");
    this.hasVideo = false;
    this.place = aot.byId("place");
    this.place.max = clip.times.length - 1;
    this.#openVideo();
    this.place.addEventListener("input", () => this.goTo(Number(this.place.value)));
    aot.byId("play").addEventListener("click", () => this.toggle());
    aot.byId("step-back").addEventListener("click", () => this.step(-1));
    aot.byId("step-on").addEventListener("click", () => this.step(1));
    aot.byId("speed").addEventListener("change", (event) => (this.video.playbackRate = Number(event.target.value)));
    aot.byId("screen").addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => this.#onKey(event));
    this.goTo(0);
  }

  #openVideo() {
    const { video } = this;
    const missing = (text) => {
      this.hasVideo = false;
      video.hidden = true;
      aot.byId("play").disabled = true;
      aot.byId("speed").disabled = true;
      aot.byId("no-video").hidden = false;
      aot.byId("no-video").textContent = text;
    };
    if (!this.clip.video) {
      missing("No overlay was drawn (output.overlay=false).");
      return;
    }
    this.hasVideo = true;
    video.addEventListener("error", () => missing(`The video cannot be played: ${this.clip.video}`));
    for (const name of ["play", "pause", "ended"]) video.addEventListener(name, () => this.#showPlaying());
    // Browsers do not report every frame; at high speed the last one is often missed.
    video.addEventListener("ended", () => this.#follow(video.currentTime));
    video.addEventListener("pause", () => {
      this.#follow(video.currentTime);
      if (!video.ended) this.goTo(this.row); // the video then shows exactly the frame that is displayed
    });
    const address = aot.fileAddress(this.clip.video);
    seekable(address).then((found) => {
      video.src = found;
      this.goTo(this.row);
    }, () => missing(`The video is missing: ${this.clip.video}`));
    const watch = (_, { mediaTime }) => {
      this.#follow(mediaTime);
      video.requestVideoFrameCallback(watch);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(watch);
    else video.addEventListener("timeupdate", () => video.paused || this.#follow(video.currentTime));
  }

  toggle() {
    if (!this.hasVideo) return;
    const { video } = this;
    if (!video.paused) {
      video.pause();
      return;
    }
    if (this.row === this.clip.times.length - 1) this.goTo(0);
    video.playbackRate = Number(aot.byId("speed").value);
    video.play().catch((error) => {
      if (error.name !== "AbortError") throw error; // AbortError: paused before playback started
    });
  }

  step(count) {
    if (this.hasVideo) this.video.pause();
    this.goTo(this.row + count);
  }

  goToTime(time) {
    this.goTo(nearest(this.clip.times, time));
  }

  /** Show a row; seeks to slightly after its time, so that rounding cannot select the previous frame. */
  goTo(row) {
    const { times } = this.clip;
    this.row = Math.min(Math.max(row, 0), times.length - 1);
    if (this.hasVideo && this.video.src) {
      const step = (times[this.row + 1] ?? 2 * times[this.row] - (times[this.row - 1] ?? 0)) - times[this.row];
      this.video.currentTime = times[this.row] + Math.min(0.4 * step, 0.02);
    }
    this.#show();
  }

  /** Update the row to the frame that the video shows; not while seeking, when it may show an earlier one. */
  #follow(time) {
    if (this.video.seeking) return;
    const { times } = this.clip;
    const row = nearest(times, time);
    this.row = row > 0 && times[row] > time + CLOCK_SLACK ? row - 1 : row;
    this.#show();
  }

  #show() {
    const { clip, row } = this;
    const time = clip.start + clip.times[row];
    this.place.value = row;
    this.place.setAttribute("aria-valuetext", `frame ${clip.frames[row]}, ${time.toFixed(2)} seconds`);
    aot.byId("where").textContent = `frame ${clip.frames[row]} · ${time.toFixed(2)} s`;
    aot.byId("step-back").disabled = row === 0;
    aot.byId("step-on").disabled = row === clip.times.length - 1;
    this.onRow(row);
  }

  #showPlaying() {
    const isPlaying = !this.video.paused && !this.video.ended;
    const button = aot.byId("play");
    button.ariaLabel = isPlaying ? "Pause" : "Play";
    button.title = `${button.ariaLabel} (Space)`;
    button.querySelector("path").setAttribute("d", isPlaying ? "M4.5 3v10M11.5 3v10" : "M4.5 2.5v11l9-5.5z");
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input, button, a, summary")) return;
    const keys = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.step(event.shiftKey ? -10 : -1),
      ArrowRight: () => this.step(event.shiftKey ? 10 : 1),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      n: () => follow("after"),
      p: () => follow("before"),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }
}

/** Open the next or the previous clip, where there is one. */
function follow(id) {
  const link = aot.byId(id);
  if (!link.hidden) link.click();
}

/**
 * An address at which the browser can seek. Simple static servers (such as python -m http.server) do not support range
 * requests: there the video is loaded completely first.
 */
async function seekable(address) {
  if (location.protocol === "file:") return address;
  const part = await fetch(address, { headers: { Range: "bytes=0-0" } });
  if (!part.ok) throw new Error(part.statusText);
  if (part.status === 206) {
    await part.body?.cancel();
    return address;
  }
  return URL.createObjectURL(await part.blob());
}

/** The index of the element of an ascending list that is nearest to `value`. */
function nearest(list, value) {
  let [low, high] = [0, list.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(list[high] - value) < Math.abs(list[low] - value) ? high : low;
}

// Charts ------------------------------------------------------------------------------------------------------------

function showCharts(clip, onSeek) {
  const { charts, objects } = clip;
  const times = charts.rows.map((row) => clip.times[row]);
  const points = unpackedPoints(charts);
  const view = new aot.Charts(aot.byId("charts"), times, onSeek);
  const choice = aot.byId("chart-object");
  choice.append(
    aot.make("option", { value: "" }, "all"),
    ...objects.map(({ id, name }) => aot.make("option", { value: String(id) }, name ? `${id} ${name}` : String(id))),
  );
  const thinned = [];
  if (points.length < charts.points.num_points) thinned.push(`${points.length} of ${charts.points.num_points} points`);
  if (times.length < clip.times.length) thinned.push(`${times.length} of ${clip.times.length} frames`);
  aot.byId("thinned").textContent = thinned.length ? `shown: ${thinned.join(", ")}` : "";
  const rowOf = (row) => nearest(charts.rows, row);

  const fill = () => {
    view.clear();
    const chosen = objects.map((object, place) => ({ ...object, place })).filter(({ id }) => !choice.value || String(id) === choice.value);
    const own = points.filter(({ objectId }) => chosen.some(({ id }) => id === objectId));
    const colour = ({ colour: rgb }) => `rgb(${rgb.join(" ")})`;
    const colourOf = (id) => colour(objects.find((object) => object.id === id));
    const perObject = (values, unit = "") => (row) =>
      chosen.map(({ id, place }) => `${objects.length > 1 ? `${id}: ` : ""}${aot.shown(values[place][rowOf(row)])}${unit}`).join("   ");

    if (charts.area.some((values) => values.some((value) => value !== null))) {
      const areas = chosen.map((object) => ({ values: charts.area[object.place], colour: colour(object), width: 2 }));
      const range = [0, aot.rangeOf(areas.map(({ values }) => values))[1]];
      view.add({
        title: "Mask area", height: AREA_HEIGHT, valueAt: perObject(charts.area, " px"),
        alt: `Mask areas from ${range[0]} to ${aot.shown(range[1])} px over ${times.length} frames`,
        paint: (context, plot) => aot.paintLines(context, plot, areas, range, { unit: " px" }),
      });
      const scores = chosen.map((object) => ({ values: charts.score[object.place], colour: colour(object), width: 2 }));
      view.add({
        title: "Mask score", height: 56, valueAt: perObject(charts.score),
        alt: `Scores of the masks, 0 to 1, over ${times.length} frames`,
        paint: (context, plot) => aot.paintLines(context, plot, scores, [0, 1]),
      });
    }
    if (!own.length) return;
    const fractions = chosen.map((object) => ({ values: charts.visible_share[object.place], colour: colour(object), width: 2 }));
    view.add({
      title: "Visible points", height: 56, valueAt: perObject(charts.visible_share),
      alt: `Fraction of visible points, 0 to 1, over ${times.length} frames`,
      paint: (context, plot) => aot.paintLines(context, plot, fractions, [0, 1]),
    });
    const covered = chosen.map((object) => ({ values: charts.coverage[object.place], colour: colour(object), width: 2 }));
    view.add({
      title: "Coverage", height: 56, valueAt: perObject(charts.coverage),
      alt: `Fraction of the masks that valid points cover, 0 to 1, over ${times.length} frames`,
      paint: (context, plot) => aot.paintLines(context, plot, covered, [0, 1]),
    });
    view.add({
      title: "Visibility, one strip per point", height: Math.max(24, Math.min(160, STRIP_PX * own.length)),
      alt: `Visibility of ${own.length} points over ${times.length} frames; opacity is the visibility`,
      valueAt: (row) => `${own.filter((point) => point.visible[rowOf(row)]).length} of ${own.length} visible`,
      paint: (context, plot) =>
        aot.paintStrips(context, plot, own.map(({ visibility, objectId }) => ({ values: visibility, colour: colourOf(objectId) }))),
    });
    for (const axis of ["x", "y"]) {
      const lines = own.map((point) => ({
        values: point[axis], colour: colourOf(point.objectId), alpha: 0.75, width: 1.25, isFaint: (row) => !point.visible[row],
      }));
      const range = aot.rangeOf(lines.map(({ values }) => values));
      view.add({
        title: `${axis} of the points`, height: 110, valueAt: () => "faint while hidden",
        alt: `${axis} of ${own.length} points from ${aot.shown(range[0])} to ${aot.shown(range[1])} px over ${times.length} frames`,
        paint: (context, plot) => aot.paintLines(context, plot, lines, range, { unit: " px" }),
      });
    }
  };
  const again = () => {
    fill();
    view.draw();
    const row = Number(aot.byId("place").value);
    view.point(clip.times[row], row);
  };
  choice.addEventListener("change", again);
  again();
  return view;
}

function unpackedPoints({ points, rows }) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const [visible, visibility] = [bytes(points.visible), bytes(points.visibility)];
  const [x, y] = [points.x, points.y].map((text) => new DataView(bytes(text).buffer));
  const count = rows.length;
  const position = (values, place) => {
    const value = values.getInt16(2 * place, true);
    return value === points.none ? null : value / points.steps;
  };
  return points.number.map((number, place) => {
    const own = Array.from({ length: count }, (_, row) => place * count + row);
    return {
      number,
      objectId: points.object_id[place],
      x: own.map((at) => position(x, at)),
      y: own.map((at) => position(y, at)),
      visible: own.map((at) => visible[at] === 1),
      visibility: own.map((at) => visibility[at] / 255),
    };
  });
}

// Objects, prompts, provenance --------------------------------------------------------------------------------------

function showObjects(clip) {
  aot.byId("objects").replaceChildren(
    ...clip.objects.map((object) => {
      const swatch = aot.make("span", { className: "swatch" }, String(object.id));
      swatch.style.setProperty("--swatch", `rgb(${object.colour.join(" ")})`);
      const facts = aot.facts([
        ["points", aot.shown(object.points)],
        ["visible", object.visible === null ? null : aot.shown(object.visible)],
        ["in mask", object.in_mask === null ? null : aot.shown(object.in_mask)],
        ["score", object.score === null ? null : aot.shown(object.score)],
      ]);
      return aot.make(
        "li", {},
        aot.make("p", { className: "object-name" }, swatch, aot.make("bdi", {}, object.name || `object ${object.id}`)),
        object.error ? aot.make("p", { className: "object-error" }, object.error) : null,
        aot.make("dl", { className: "facts" }, ...facts),
      );
    }),
  );
}

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function showPromptFrames(clip) {
  const { facts, objects } = clip;
  const figures = clip.pictures.map(({ frame, file }) => {
    const prompts = objects.flatMap((object) =>
      object.prompts.filter((prompt) => prompt.frame === frame).map((prompt) => ({ ...prompt, object })),
    );
    const words = prompts.map((prompt) => describePrompt(prompt)).join("; ");
    const overlay = drawn("svg", { viewBox: `0 0 ${facts.width} ${facts.height}`, "aria-hidden": "true" });
    overlay.append(...prompts.flatMap((prompt) => promptShapes(prompt, facts.width)));
    const image = aot.make("img", { src: aot.fileAddress(file), alt: `Frame ${frame} with its masks. Prompts: ${words}`, loading: "lazy" });
    image.width = facts.width;
    image.height = facts.height;
    return aot.make(
      "figure", {},
      aot.make("div", { className: "prompt-image" }, image, overlay),
      aot.make("figcaption", {}, aot.make("strong", {}, `frame ${frame}`), ` ${words}`),
    );
  });
  if (clip.pictures_note) figures.push(aot.make("p", { className: "muted" }, `No images: ${clip.pictures_note}`));
  aot.byId("pictures").replaceChildren(...figures);
}

function showFlow({ facts, flow }) {
  aot.byId("flow-section").hidden = !flow; // pages of earlier versions have none
  if (!flow) return;
  const alt = `Colours of the flow from frame ${flow.frame} to frame ${flow.next}`;
  const image = aot.make("img", { src: aot.fileAddress(flow.file), alt, loading: "lazy" });
  image.width = facts.width;
  image.height = facts.height;
  const words = `where points move most. The hue is the direction (right red, down yellow, left cyan, up violet), full colour is ${aot.shown(flow.full_px)} px or more; black: no flow.`;
  aot.byId("flow").replaceChildren(
    aot.make(
      "figure", {},
      aot.make("div", { className: "prompt-image" }, image),
      aot.make("figcaption", {}, aot.make("strong", {}, `frame ${flow.frame} to ${flow.next}`), ` ${words}`),
    ),
  );
}

function describePrompt({ object, box, points = [], labels = [], mask, query_points: queries = [], text, score, model }) {
  const parts = [];
  if (text) {
    const how = [score === undefined ? null : `score ${aot.shown(score)}`, model ?? null].filter((part) => part !== null);
    parts.push(`“${text}”${how.length ? ` (${how.join(", ")})` : ""}`);
  }
  if (box) parts.push(`box ${box.map((value) => aot.shown(value)).join(", ")}`);
  const positive = labels.filter((label) => label === 1).length;
  if (points.length) parts.push(`${aot.count(positive, "object point")}, ${aot.count(points.length - positive, "background point")}`);
  if (mask) parts.push(`mask ${mask}`);
  if (queries.length) parts.push(`${aot.count(queries.length, "query point")}`);
  return `object ${object.id}: ${parts.join(", ")}`;
}

function promptShapes({ object, box, points = [], labels = [], query_points: queries = [], frame }, width) {
  const colour = `rgb(${object.colour.join(" ")})`;
  const unit = width / 400;
  const shapes = [];
  if (box) {
    const [x0, y0, x1, y1] = box.map((value) => value + 0.5);
    const rectangle = { x: x0, y: y0, width: x1 - x0, height: y1 - y0, fill: "none" };
    shapes.push(drawn("rect", { ...rectangle, stroke: "#000", "stroke-opacity": 0.6, "stroke-width": 2.6 * unit }));
    shapes.push(drawn("rect", { ...rectangle, stroke: colour, "stroke-width": 1.4 * unit }));
  }
  points.forEach(([x, y], number) => {
    const isOn = labels[number] !== 0;
    const at = { cx: x + 0.5, cy: y + 0.5, r: 5 * unit, fill: isOn ? colour : "#fff", stroke: isOn ? "#fff" : colour };
    shapes.push(drawn("circle", { ...at, "stroke-width": 1.6 * unit }));
    const arm = 2.6 * unit;
    const cross = isOn ? `M${x + 0.5 - arm} ${y + 0.5}h${2 * arm}M${x + 0.5} ${y + 0.5 - arm}v${2 * arm}` : `M${x + 0.5 - arm} ${y + 0.5}h${2 * arm}`;
    shapes.push(drawn("path", { d: cross, stroke: "#10141a", "stroke-width": 1.4 * unit }));
  });
  for (const [at, x, y] of queries) {
    if (at !== frame) continue;
    const arm = 4 * unit;
    shapes.push(drawn("path", { d: `M${x + 0.5} ${y + 0.5 - arm}l${arm} ${arm}l${-arm} ${arm}l${-arm} ${-arm}z`, fill: colour, stroke: "#fff", "stroke-width": unit }));
  }
  return shapes;
}

function showClipOrigin(clip) {
  const { facts } = clip;
  const device = facts.peak_device_bytes ?? {};
  const stages = Object.entries({ ...facts.seconds, ...clip.drawing_seconds }).map(([stage, seconds]) => ({
    stage,
    seconds,
    ...(stage in device ? { "peak device MB": device[stage] / 2 ** 20 } : {}),
  }));
  const versions = Object.entries(facts.versions ?? {}).map(([name, version]) => ({ package: name, version }));
  aot.byId("origin").replaceChildren(
    aot.make(
      "dl", { className: "facts" },
      ...aot.facts([
        ["source", facts.source],
        ["SHA-256", facts.source_sha256],
        ["configuration", facts.config_hash?.slice(0, 16)],
        ["created", facts.created],
      ]),
    ),
    ...(facts.weights?.length ? [aot.make("h3", {}, "Checkpoints and their licences"), aot.records(facts.weights)] : []),
    aot.details("Attempts", aot.records((facts.attempts ?? []).map((attempt) => ({ ...attempt, error: attempt.error ?? "" })))),
    aot.details("Time of the stages", aot.records(stages)),
    aot.details("Versions", aot.records(versions)),
    aot.details("Configuration", aot.make("pre", { tabIndex: 0 }, clip.config)),
  );
}

function showFailure(failure) {
  const box = aot.byId("failure");
  box.hidden = false;
  const log = failure.log?.href ? aot.make("a", { href: failure.log.href }, failure.log.name) : failure.log?.name;
  box.replaceChildren(
    aot.make("p", {}, aot.make("span", { className: "state bad" }, failure.class), ` in stage ${failure.stage ?? "unknown"}`),
    aot.make("p", { className: "message" }, failure.message),
    aot.make("dl", { className: "facts" }, ...aot.facts([["source", failure.source], ["at", failure.at], ["log", log]])),
    ...(failure.attempts?.length ? [aot.make("h2", {}, "Attempts"), aot.records(failure.attempts)] : []),
    ...(failure.log_lines?.length ? [aot.make("h2", {}, "From the log"), aot.make("pre", { tabIndex: 0 }, failure.log_lines.join("\n"))] : []),
    ...(failure.traceback ? [aot.details("Traceback", aot.make("pre", { tabIndex: 0 }, failure.traceback))] : []),
  );
}

begin();
