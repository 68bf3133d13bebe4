// The page: the shown clip and frame, keys and clicks, and saving.

import * as api from "./api.js";
import { ClipListView } from "./clip-list.js";
import { ClipPrompts } from "./prompts.js";
import { Drafts } from "./drafts.js";
import { Side, maskFacts, partsOf } from "./side.js";
import { Stage } from "./stage.js";
import { counted, printable, showName } from "./text.js";

const SAVE_AFTER_MS = 150;
const RETRY_SAVE_MS = 3000;
const POLL_MS = 4000;
const PREPARE_AFTER_MS = 400;
const MAX_CACHED_FRAMES = 48;
const CROSS_STEP = 10;

const $ = (id) => document.getElementById(id);

const state = {
  session: null,
  clips: [],
  revision: "",
  clip: null, // {id, info, prompts, version, pattern}
  frame: 0,
  time: 0,
  masks: [],
  selected: null,
  isDirty: false,
  isSaving: false,
  conflict: null,
};

const drafts = new Drafts();
const cachedFrames = new Map();
let clipRequests = 0;
let frameAbort = null;
let masksRunning = false;
let masksWanted = false;
let saveTimer = null;
let prepareTimer = null;

const stage = new Stage($("stage"), $("canvas"), {
  point: (xy, label) => addPoint(xy, label),
  box: (box) => change(() => state.clip.prompts.setBox(state.frame, box)),
  move: (id, index, xy) => change(() => state.clip.prompts.movePoint(id, state.frame, index, xy)),
  resize: (id, box) => change(() => state.clip.prompts.setBox(state.frame, box, id)),
  select: (selected) => select(selected),
  zoom: (percent) => ($("zoom-fit").textContent = `${percent} %`),
});
const list = new ClipListView($("clip-list"), (id) => openClip(id));
const side = new Side({
  choose: (id) => chooseObject(id),
  rename: (id, name) => change(() => state.clip.prompts.rename(id, name)),
  removeObject: (id) => change(() => state.clip.prompts.removeObject(id)),
  select: (selected) => select(selected),
  remove: (part) => removePart(part),
  go: (frame) => showFrame(frame),
});

// Clips -----------------------------------------------------------------------------------------------------------

async function begin() {
  try {
    state.session = await api.session();
    const { dataset, manifest, segmenter, segmenter_note: note, run_command: command, palette, detector } = state.session;
    $("words").hidden = !detector;
    $("words-find").title = `Find with ${detector}`;
    $("dataset").textContent = dataset;
    $("manifest").textContent = manifest;
    $("manifest").title = manifest;
    $("segmenter").textContent = segmenter ? `masks by ${segmenter}` : "no masks";
    $("segmenter").title = note;
    $("run-command").textContent = command;
    if (note) notify(segmenter ? `Masks by ${segmenter}: the preferred segmenter is not available.` : "No masks are shown.", false, note);
    stage.palette = palette;
    drafts.open(manifest);
    await refreshClips();
    setSaved("saved", "good");
    const linked = state.clips.find((clip) => clip.clip_id === linkedPlace().get("clip"));
    const first = linked ?? state.clips.find((clip) => clip.state === "no prompt") ?? state.clips[0];
    if (first) await openClip(first.clip_id);
    setInterval(pollChanges, POLL_MS);
  } catch (error) {
    notify(error.message, true);
    setSaved("not connected", "bad");
  }
}

async function refreshClips() {
  const answer = await api.clips(state.revision);
  if (!answer.clips) return;
  state.revision = answer.revision;
  state.clips = answer.clips;
  showClips();
}

function showClips() {
  const wanted = $("clip-filter").value;
  const text = $("clip-search").value.trim().toLowerCase();
  const shown = state.clips.filter(
    (clip) => (!wanted || clip.state === wanted) && (!text || clip.clip_id.toLowerCase().includes(text)),
  );
  list.show(shown);
  const prompted = state.clips.filter((clip) => clip.state !== "no prompt").length;
  const total = `${prompted} of ${state.clips.length} prompted`;
  $("clips-count").textContent = shown.length === state.clips.length ? total : `${shown.length} shown, ${total}`;
  $("clips-empty").hidden = shown.length > 0;
}

/** Load changes that were made on disk. */
async function pollChanges() {
  if (document.hidden || state.conflict) return;
  try {
    const before = state.revision;
    await refreshClips();
    const { clip } = state;
    if (before === state.revision || !clip || state.isDirty || state.isSaving) return;
    const now = await api.clip(clip.id);
    if (clip !== state.clip || state.isDirty || state.isSaving || snapshot(now) === clip.snapshot) return;
    adopt(now);
    notify("The prompts of this clip were changed on disk and have been reloaded.");
  } catch (error) {
    notify(error.message, true);
  }
}

async function openClip(id) {
  if (state.clip?.id === id) return;
  if (!(await flush())) return;
  clipRequests += 1;
  const request = clipRequests;
  list.select(id);
  showName($("clip-name"), id);
  $("clip-name").title = printable(id);
  // Until the clip is loaded, clicks are ignored: they would reach the previous clip.
  state.clip = { id, info: null, prompts: new ClipPrompts([]) };
  state.masks = [];
  $("stage").classList.add("loading");
  $("stage").ariaLabel = `Loading ${id}`;
  render();
  try {
    const info = await api.clip(id);
    if (request !== clipRequests) return;
    state.clip = { id, info };
    clearFrames();
    stage.open(info.width, info.height);
    $("stage").classList.remove("loading");
    for (const input of [$("frame-range"), $("frame-number")]) {
      input.min = info.first;
      input.max = info.last;
    }
    showStageMessage("");
    adopt(info);
    takeUpDraft(info);
    const isShown = (frame) => frame >= info.first && frame <= info.last;
    await showFrame([linkedFrame(id), ...state.clip.prompts.frames].find(isShown) ?? info.first);
  } catch (error) {
    if (request !== clipRequests) return;
    $("stage").classList.remove("loading");
    stage.open(0, 0);
    stage.draw();
    showStageMessage(error.message);
  }
}

/** Show the prompts that the server has sent. */
function adopt(answer) {
  const { objects, version, pattern } = answer;
  Object.assign(state.clip, { prompts: new ClipPrompts(objects), version, pattern, snapshot: snapshot(answer) });
  state.selected = null;
  state.masks = [];
  render();
  findMasks();
}

/** Continue with changes that were not saved before the page was closed; the user decides if the clip has changed. */
function takeUpDraft(answer) {
  const { clip } = state;
  const draft = drafts.of(clip.id);
  if (!draft) return;
  if (JSON.stringify(draft.entries) === JSON.stringify(answer.objects)) {
    drafts.forget(clip.id);
    return;
  }
  clip.prompts.replace(draft.entries);
  state.isDirty = true;
  if (draft.version === answer.version) afterChange();
  else showConflict(clip, answer);
  render();
}

/** The prompts that the server has sent, to detect later changes. */
function snapshot({ objects, pattern }) {
  return JSON.stringify([objects, pattern]);
}

async function nextUnprompted() {
  const place = state.clips.findIndex((clip) => clip.clip_id === state.clip?.id);
  const inOrder = [...state.clips.slice(place + 1), ...state.clips.slice(0, place)];
  const next = inOrder.find((clip) => clip.state === "no prompt");
  if (next) await openClip(next.clip_id);
  else notify(`All other clips have prompts. Run: ${state.session.run_command}`);
}

async function accept() {
  if (!state.clip?.info || !(await flush())) return;
  if (!state.clip.prompts.entries.length) {
    notify("This clip has no prompt yet: click the object first, or open the next clip with N.");
    return;
  }
  await refreshClips().catch((error) => notify(error.message, true));
  await nextUnprompted();
}

// Address ---------------------------------------------------------------------------------------------------------

/** The clip and the frame that the page's address names. */
const linkedPlace = () => new URLSearchParams(location.hash.slice(1));

function linkedFrame(id) {
  const place = linkedPlace();
  return place.get("clip") === id && place.has("frame") ? Number(place.get("frame")) : undefined;
}

function rememberPlace() {
  history.replaceState(null, "", `#${new URLSearchParams({ clip: state.clip.id, frame: state.frame })}`);
}

window.addEventListener("hashchange", async () => {
  const id = linkedPlace().get("clip");
  if (id !== state.clip?.id && state.clips.some((clip) => clip.clip_id === id)) await openClip(id);
  const frame = linkedFrame(state.clip?.id);
  if (Number.isFinite(frame)) showFrame(frame);
});

// Frames ----------------------------------------------------------------------------------------------------------

async function showFrame(number) {
  const { clip } = state;
  if (!clip?.info) return;
  state.frame = Math.min(Math.max(Math.round(number), clip.info.first), clip.info.last);
  state.masks = [];
  state.selected = null;
  render();
  findMasks();
  frameAbort?.abort();
  frameAbort = new AbortController();
  const frame = state.frame;
  rememberPlace();
  // The image of another frame is still shown: a click on it would mark a place that the user does not see.
  if (!cachedFrames.has(frame)) stage.wait();
  try {
    const { image, time } = await loadFrame(clip, frame, frameAbort.signal);
    if (clip !== state.clip || frame !== state.frame) return;
    state.time = time;
    showStageMessage("");
    stage.show(image);
    render();
  } catch (error) {
    if (error.name === "AbortError" || clip !== state.clip || frame !== state.frame) return;
    stage.show(null);
    showStageMessage(error.message);
  }
}

async function loadFrame(clip, frame, signal) {
  const known = cachedFrames.get(frame);
  if (known) return known;
  const found = await api.frame(clip.id, frame, signal);
  if (clip !== state.clip) return found;
  cachedFrames.set(frame, found);
  if (cachedFrames.size > MAX_CACHED_FRAMES) {
    const [oldest, old] = cachedFrames.entries().next().value;
    cachedFrames.delete(oldest);
    if (old.image !== stage.shown) old.image.close();
  }
  return found;
}

function clearFrames() {
  for (const { image } of cachedFrames.values()) image.close();
  cachedFrames.clear();
}

function showStageMessage(text) {
  $("stage-message").hidden = !text;
  $("stage-message").textContent = text;
}

// Prompts ---------------------------------------------------------------------------------------------------------

/** Make a change, show it, request its masks and save it. */
function change(make) {
  if (!state.clip?.info) return;
  make();
  state.isDirty = true;
  state.selected = null;
  afterChange();
}

function afterChange() {
  drafts.keep(state.clip.id, state.clip.version, state.clip.prompts.entries);
  setSaved("saving", "");
  render();
  findMasks();
  clearTimeout(saveTimer);
  saveTimer = setTimeout(save, SAVE_AFTER_MS);
}

function addPoint(xy, label) {
  const { prompts } = state.clip ?? {};
  if (!prompts || !stage.image) return;
  if (prompts.at(prompts.active, state.frame)?.mask) {
    notify("A mask cannot be combined with points on the same frame: delete the mask first, or choose another frame or object.");
    return;
  }
  change(() => prompts.addPoint(state.frame, xy, label));
}

/** Let the detector find what the words describe on the shown frame. */
async function findWords() {
  const { clip, frame } = state;
  const text = $("words-text").value.trim();
  if (!text || !clip?.info || !stage.image || $("words-find").disabled) return;
  $("words-find").disabled = true;
  try {
    const { objects, note } = await api.words(clip.id, frame, text, $("words-all").checked);
    if (clip !== state.clip) notify(`“${text}” was not added: another clip is open now.`);
    else {
      const added = clip.prompts.newOf(objects);
      if (!objects.length) notify(note);
      else if (!added.length) notify(`“${text}” is marked on this frame already.`);
      else {
        change(() => clip.prompts.addFound(added));
        announce(`${counted(added.length, "object")} found, scores ${added.map(({ score }) => score.toFixed(2)).join(", ")}`);
      }
    }
  } catch (error) {
    notify(error.message);
  } finally {
    $("words-find").disabled = false;
  }
}

function chooseObject(id) {
  if (!state.clip?.info) return;
  state.clip.prompts.choose(id);
  state.selected = null;
  render();
  announce(`object ${id} ${state.clip.prompts.name(id)}`);
}

function select(selected) {
  state.selected = selected;
  if (selected && selected.id !== state.clip.prompts.active) state.clip.prompts.choose(selected.id);
  render();
}

function removePart(part) {
  change(() => state.clip.prompts.remove(state.clip.prompts.active, state.frame, part));
}

function removeSelected() {
  const { prompts } = state.clip;
  const id = prompts.active;
  const parts = partsOf(prompts.at(id, state.frame));
  const part = state.selected?.id === id ? state.selected.part : parts.at(-1);
  if (part) removePart(part);
}

function travel(direction) {
  const { prompts } = state.clip ?? {};
  const before = prompts?.entries;
  if (!prompts || !prompts[direction]()) return;
  state.isDirty = true;
  state.selected = null;
  const changed = changedFrame(before, prompts.entries);
  if (changed !== undefined && changed !== state.frame) showFrame(changed);
  announce(direction === "undo" ? "undone" : "redone");
  afterChange();
}

/** The frame of the first entry that only one of two lists has; undefined if they are equal. */
function changedFrame(before, after) {
  const known = [new Set(before), new Set(after)];
  return [...before, ...after].find((entry) => known.some((entries) => !entries.has(entry)))?.frame;
}

/** Request the masks of this frame; at most one request is in flight, followed by the newest one. */
async function findMasks() {
  clearTimeout(prepareTimer);
  masksWanted = true;
  if (masksRunning || !state.session?.segmenter) return;
  masksRunning = true;
  while (masksWanted) {
    masksWanted = false;
    const { clip, frame } = state;
    if (!clip?.info) break;
    const objects = clip.prompts.on(frame);
    if (!objects.length) {
      prepareFrame();
      setMasks([]);
      continue;
    }
    $("busy").hidden = false;
    try {
      const found = await api.masks(clip.id, frame, objects);
      if (clip === state.clip && frame === state.frame) setMasks(found);
    } catch (error) {
      if (clip === state.clip && frame === state.frame) setMasks([]);
      notify(error.message, true);
    }
  }
  $("busy").hidden = true;
  masksRunning = false;
}

/** Have the server encode a frame that stays shown, so that the response to the first click on it is fast. */
function prepareFrame() {
  const { clip, frame } = state;
  prepareTimer = setTimeout(() => {
    if (clip === state.clip && frame === state.frame) api.masks(clip.id, frame, []).catch(() => {});
  }, PREPARE_AFTER_MS);
}

function setMasks(masks) {
  state.masks = masks;
  render();
  const { prompts, info } = state.clip;
  const mask = masks.find((other) => other.object_id === prompts.active);
  if (mask) announce(mask.note || `object ${mask.object_id}: ${maskFacts(mask, info)}`);
}

// Saving ----------------------------------------------------------------------------------------------------------

async function save() {
  clearTimeout(saveTimer);
  const { clip } = state;
  if (state.isSaving || !state.isDirty || !clip?.info || state.conflict) return;
  state.isSaving = true;
  state.isDirty = false;
  try {
    const saved = await api.save(clip.id, clip.version, clip.prompts.entries);
    Object.assign(clip, { version: saved.version, pattern: saved.pattern, snapshot: snapshot(saved) });
    if (!state.isDirty) drafts.forget(clip.id);
    if ($("saved").textContent === "not saved") $("notice").hidden = true;
    if (!state.isDirty) setSaved("saved", "good"); // else there is a newer change, which is saved next
    noteState(clip.id, saved);
    if (!clip.prompts.entries.length && saved.pattern && clip === state.clip) adopt(saved);
  } catch (error) {
    state.isDirty = true;
    if (error.status === 409) showConflict(clip, error.body);
    else {
      setSaved("not saved", "bad");
      notify(`Not saved: ${error.message}`, true);
      saveTimer = setTimeout(save, RETRY_SAVE_MS);
    }
    return;
  } finally {
    state.isSaving = false;
  }
  if (state.isDirty) await save();
  else render();
}

/** Save pending changes; returns whether all are saved. */
async function flush() {
  while (state.isSaving) await new Promise((resolve) => setTimeout(resolve, 20));
  if (state.isDirty) await save();
  if (state.isDirty && !state.conflict) announce("not saved");
  return !state.isDirty;
}

function noteState(id, saved) {
  const known = state.clips.find((clip) => clip.clip_id === id);
  if (!known || (known.state === saved.state && known.num_objects === saved.num_objects)) return;
  Object.assign(known, { state: saved.state, num_objects: saved.num_objects, pattern: saved.pattern });
  showClips();
  list.select(id);
}

function showConflict(clip, theirs) {
  state.conflict = { clip, theirs };
  setSaved("changed on disk", "warn");
  $("conflict-clip").textContent = printable(clip.id);
  $("conflict-theirs").textContent = asText(theirs.objects);
  $("conflict-yours").textContent = asText(clip.prompts.entries);
  $("conflict").showModal();
}

function resolveConflict(keepsYours) {
  const { clip, theirs } = state.conflict;
  state.conflict = null;
  $("conflict").close();
  if (keepsYours) {
    clip.version = theirs.version;
    state.isDirty = true;
    save();
    return;
  }
  state.isDirty = false;
  drafts.forget(clip.id);
  setSaved("saved", "good");
  if (clip === state.clip) adopt(theirs);
}

function asText(objects) {
  if (!objects.length) return "(no prompt)";
  return objects
    .map((entry) => {
      const parts = partsOf(entry).map((part) => `  ${part.meaning}: ${part.text}`);
      return [`object ${entry.id} ${entry.name ?? ""}, frame ${entry.frame}`, ...parts].join("\n");
    })
    .join("\n");
}

// Showing ---------------------------------------------------------------------------------------------------------

function render() {
  const { clip, frame } = state;
  const prompts = clip?.prompts;
  const isOpen = Boolean(clip?.info);
  for (const id of ["accept", "zoom-in", "zoom-out", "zoom-fit", "add-object", "frame-range", "frame-number"]) {
    $(id).disabled = !isOpen;
  }
  $("undo").disabled = !prompts?.past.length;
  $("redo").disabled = !prompts?.future.length;
  $("previous-frame").disabled = !isOpen || frame <= clip.info.first;
  $("next-frame").disabled = !isOpen || frame >= clip.info.last;
  if (!prompts) return;
  const colour = (id) => stage.colour(id);
  const size = { width: clip.info?.width ?? 1, height: clip.info?.height ?? 1 };
  side.show({ prompts, frame, masks: state.masks, size, selected: state.selected, colour, pattern: clip.pattern });
  stage.update({ entries: prompts.on(frame), active: prompts.active, selected: state.selected, masks: state.masks });
  if (!isOpen) return;
  $("frame-range").value = frame;
  $("frame-range").setAttribute("aria-valuetext", `frame ${frame} of ${clip.info.first} to ${clip.info.last}`);
  if (document.activeElement !== $("frame-number")) $("frame-number").value = frame;
  $("frame-facts").textContent = `of ${clip.info.last} · ${state.time.toFixed(2)} s`;
  $("stage").ariaLabel = `Frame ${frame} of ${clip.id}, ${counted(prompts.on(frame).length, "prompt")} on it`;
  const span = Math.max(1, clip.info.last - clip.info.first);
  $("marks").replaceChildren(
    ...prompts.entries.map((entry) => {
      const mark = document.createElement("span");
      mark.style.left = `${(100 * (entry.frame - clip.info.first)) / span}%`;
      mark.style.background = colour(entry.id);
      return mark;
    }),
  );
}

function notify(text, isBad = false, why = "") {
  $("notice-text").textContent = text;
  $("notice-why").hidden = !why;
  $("notice-why").onclick = () => notify(why, isBad);
  $("notice").classList.toggle("bad", isBad);
  $("notice").hidden = false;
}

function announce(text) {
  $("live").textContent = text;
}

function setSaved(text, kind) {
  $("saved").textContent = text;
  $("saved").className = `state ${kind}`;
}

// Keys ------------------------------------------------------------------------------------------------------------

function crossKey(event) {
  const step = event.shiftKey ? 1 : CROSS_STEP;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    stage.moveCross(...moves[event.key]);
    announce(stage.cross.join(", "));
  } else if (event.key === " ") addPoint([...stage.cross], 1);
  else if (event.key.toLowerCase() === "x") addPoint([...stage.cross], 0);
  else if (event.key.toLowerCase() === "b") {
    const box = stage.image && stage.crossCorner();
    if (box) change(() => state.clip.prompts.setBox(state.frame, box));
    else announce("first corner of the box");
  } else if (event.key === "Escape") toggleCross();
  else return false;
  return true;
}

function toggleCross() {
  const isOn = stage.toggleCross();
  $("crosshair").ariaPressed = String(isOn);
  if (isOn) $("stage").focus();
  announce(isOn ? "crosshair on" : "crosshair off");
}

function goToPrompted(direction) {
  const frames = state.clip?.prompts.frames ?? [];
  const next = direction > 0 ? frames.find((f) => f > state.frame) : frames.findLast((f) => f < state.frame);
  if (next !== undefined) showFrame(next);
}

function toggleMasks() {
  const areShown = !stage.areMasksShown;
  $("show-masks").ariaPressed = String(areShown);
  stage.update({ areMasksShown: areShown });
}

function openNeighbour(step) {
  const id = list.neighbour(step);
  if (id) openClip(id);
}

function startNaming() {
  document.querySelector(`[data-focus="name-${state.clip?.prompts.active}"]`)?.focus();
}

const KEYS = {
  ArrowLeft: (event) => showFrame(state.frame - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => showFrame(state.frame + (event.shiftKey ? 10 : 1)),
  ArrowUp: () => openNeighbour(-1),
  ArrowDown: () => openNeighbour(1),
  Home: () => showFrame(state.clip?.info?.first ?? 0),
  End: () => showFrame(state.clip?.info?.last ?? 0),
  "[": () => goToPrompted(-1),
  "]": () => goToPrompted(1),
  Enter: () => accept(),
  n: () => nextUnprompted(),
  z: (event) => travel(event.shiftKey ? "redo" : "undo"),
  y: () => travel("redo"),
  o: () => addObject(),
  r: () => startNaming(),
  Delete: () => state.clip?.info && removeSelected(),
  Backspace: () => state.clip?.info && removeSelected(),
  c: () => state.clip?.info && toggleCross(),
  m: () => toggleMasks(),
  "+": () => stage.zoom(1.5),
  "=": () => stage.zoom(1.5),
  "-": () => stage.zoom(1 / 1.5),
  0: () => stage.fit(),
  "?": () => $("help").showModal(),
};

function addObject() {
  if (!state.clip?.info) return;
  state.clip.prompts.addObject();
  state.selected = null;
  render();
  announce(`object ${state.clip.prompts.active}`);
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const { target } = event;
  if (event.key === "Escape" && stage.cancelDrag()) return;
  const isText = target.matches("input:not([type=range]), select, textarea");
  if (isText && event.key === "Escape") target.blur();
  if (isText && event.key === "Enter" && target.matches("input")) {
    target.blur();
    $("stage").focus({ preventScroll: true });
    return;
  }
  if (isText) return;
  const isUndo = (event.ctrlKey || event.metaKey) && "zy".includes(event.key.toLowerCase());
  if ((event.ctrlKey || event.metaKey || event.altKey) && !isUndo) return;
  if (target.matches("button, a") && (event.key === "Enter" || event.key === " ")) return;
  if (stage.cross && !isUndo && state.clip?.info && crossKey(event)) {
    event.preventDefault();
    return;
  }
  if (target.matches("input[type=range]") && /^(Arrow|Home|End|Page)/.test(event.key)) return;
  const digit = /^[1-9]$/.test(event.key);
  const action = digit ? () => chooseObject(Number(event.key)) : KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action(event);
});

$("undo").addEventListener("click", () => travel("undo"));
$("redo").addEventListener("click", () => travel("redo"));
$("zoom-in").addEventListener("click", () => stage.zoom(1.5));
$("zoom-out").addEventListener("click", () => stage.zoom(1 / 1.5));
$("zoom-fit").addEventListener("click", () => stage.fit());
$("crosshair").addEventListener("click", () => state.clip?.info && toggleCross());
$("show-masks").addEventListener("click", toggleMasks);
$("accept").addEventListener("click", accept);
$("next-unprompted").addEventListener("click", nextUnprompted);
$("add-object").addEventListener("click", addObject);
$("previous-frame").addEventListener("click", () => showFrame(state.frame - 1));
$("next-frame").addEventListener("click", () => showFrame(state.frame + 1));
$("frame-range").addEventListener("input", (event) => showFrame(Number(event.target.value)));
$("frame-number").addEventListener("change", (event) => showFrame(Number(event.target.value)));
$("clip-search").addEventListener("input", showClips);
$("clip-search").addEventListener("keydown", (event) => {
  const [first] = list.clips;
  if (event.key === "Enter" && first) openClip(first.clip_id);
});
$("clip-filter").addEventListener("change", showClips);
$("words-find").addEventListener("click", findWords);
$("words-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // the field keeps the focus, so that the words can be changed
  findWords();
});
$("help-button").addEventListener("click", () => $("help").showModal());
$("notice-close").addEventListener("click", () => ($("notice").hidden = true));
$("take-theirs").addEventListener("click", () => resolveConflict(false));
$("keep-yours").addEventListener("click", () => resolveConflict(true));
$("conflict").addEventListener("cancel", (event) => event.preventDefault());
// A browser closes a dialog at the second Escape all the same, and nothing could be saved any more.
$("conflict").addEventListener("close", () => state.conflict && $("conflict").showModal());
window.addEventListener("beforeunload", (event) => {
  if (state.isDirty || state.isSaving) event.preventDefault();
});

begin();
