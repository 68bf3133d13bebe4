// The right panel: objects, the parts of the prompt on this frame, and the prompted frames.

import { isLocated, labelsOf } from "./prompts.js";
import { counted } from "./text.js";

const $ = (id) => document.getElementById(id);

export class Side {
  /** handlers: choose(id), rename(id, name), removeObject(id), select(part), remove(part), go(frame) */
  constructor(handlers) {
    this.handlers = handlers;
    this.rows = new Map();
  }

  /** Update the panel; the focused element keeps the focus and the text being typed. */
  show({ prompts, frame, masks, size, selected, colour, pattern }) {
    const focused = document.activeElement?.dataset?.focus;
    $("pattern-note").hidden = !pattern;
    $("pattern-note").textContent = pattern
      ? `From the entry "${pattern}". The first change creates an entry for this clip.`
      : "";
    this.#showObjects(prompts, frame, masks, size, colour);
    const parts = partsOf(prompts.at(prompts.active, frame));
    $("parts").replaceChildren(
      ...parts.map((part) => this.#part(part, prompts.active, selected, colour(prompts.active))),
    );
    $("parts-empty").hidden = parts.length > 0;
    $("prompted-frames").replaceChildren(...prompts.frames.map((number) => this.#frame(number, prompts, frame, colour)));
    if (focused && !document.activeElement?.dataset?.focus) {
      document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
  }

  #showObjects(prompts, frame, masks, size, colour) {
    for (const [id, { row }] of this.rows) {
      if (prompts.ids.includes(id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    prompts.ids.forEach((id, place) => {
      if (!this.rows.has(id)) this.rows.set(id, this.#object(id, colour(id)));
      const { row, swatch, name, facts } = this.rows.get(id);
      if ($("objects").children[place] !== row) $("objects").insertBefore(row, $("objects").children[place] ?? null);
      row.classList.toggle("active", id === prompts.active);
      swatch.ariaPressed = String(id === prompts.active);
      swatch.ariaLabel = `Object ${id}${prompts.name(id) ? `, ${prompts.name(id)}` : ""}`;
      if (document.activeElement !== name) name.value = prompts.name(id);
      facts.textContent = factsOf(id, prompts, frame, masks, size);
    });
  }

  #object(id, colour) {
    const row = make("li", { className: "object" });
    row.style.setProperty("--swatch", colour);
    const swatch = make("button", { type: "button", className: "swatch", textContent: String(id) });
    swatch.title = id < 10 ? `Object ${id} (${id})` : `Object ${id}`;
    swatch.dataset.focus = `object-${id}`;
    swatch.addEventListener("click", () => this.handlers.choose(id));
    const name = make("input", { type: "text", placeholder: "name", autocomplete: "off" });
    name.ariaLabel = `Name of object ${id}`;
    name.dataset.focus = `name-${id}`;
    name.addEventListener("change", () => this.handlers.rename(id, name.value.trim()));
    const remove = make("button", { type: "button", className: "plain", title: `Delete object ${id}` });
    remove.ariaLabel = `Delete object ${id} with all its prompts`;
    remove.dataset.focus = `delete-${id}`;
    remove.append(cross());
    remove.addEventListener("click", () => this.handlers.removeObject(id));
    const facts = make("span", { className: "facts muted numbers", id: `facts-${id}` });
    row.append(swatch, name, remove, facts);
    return { row, swatch, name, facts };
  }

  #part(part, id, selected, colour) {
    const isSelected = selected?.id === id && sameParts(selected.part, part);
    const row = make("li", { className: `part${isSelected ? " selected" : ""}` });
    row.style.setProperty("--swatch", colour);
    const what = make("button", { type: "button", className: "plain what" });
    what.ariaPressed = String(isSelected);
    what.dataset.focus = `part-${part.kind}-${part.index ?? ""}`;
    const sign = make("span", { className: `sign ${part.kind}`, textContent: part.sign });
    sign.ariaHidden = "true";
    what.append(sign, make("span", { className: "visually-hidden", textContent: part.meaning }), part.text);
    what.addEventListener("click", () => this.handlers.select({ id, part }));
    const remove = make("button", { type: "button", className: "plain", title: "Delete (Delete)" });
    remove.ariaLabel = `Delete ${part.meaning} ${part.text}`;
    remove.dataset.focus = `remove-${part.kind}-${part.index ?? ""}`;
    remove.append(cross());
    remove.addEventListener("click", () => this.handlers.remove(part));
    row.append(what, remove);
    return row;
  }

  #frame(number, prompts, frame, colour) {
    const go = make("button", { type: "button", className: "plain" });
    go.ariaCurrent = String(number === frame);
    go.dataset.focus = `frame-${number}`;
    const ids = prompts.on(number).map((entry) => entry.id);
    const label = make("span", { className: "numbers", textContent: `frame ${number}` });
    const dots = make("span", { className: "dots" });
    dots.append(
      ...ids.map((id) => {
        const dot = make("span", {});
        dot.style.background = colour(id);
        return dot;
      }),
      make("span", { className: "visually-hidden", textContent: `object ${ids.join(", ")}` }),
    );
    go.append(label, dots);
    go.addEventListener("click", () => this.handlers.go(number));
    const row = make("li", {});
    row.append(go);
    return row;
  }
}

/** The parts of one entry as text. */
export function partsOf(entry) {
  if (!entry) return [];
  const parts = [];
  const labels = labelsOf(entry);
  if (entry.text) parts.push({ kind: "text", sign: "“", meaning: "words", text: `“${entry.text}”, ${originOf(entry)}` });
  if (entry.box) {
    const [x0, y0, x1, y1] = entry.box;
    parts.push({ kind: "box", sign: "□", meaning: "box", text: `${x0}, ${y0} – ${x1}, ${y1}` });
  }
  (entry.points ?? []).forEach(([x, y], index) => {
    const meaning = labels[index] ? "object point" : "background point";
    parts.push({ kind: "point", index, sign: labels[index] ? "+" : "−", meaning, text: `${x}, ${y}` });
  });
  if (entry.mask) parts.push({ kind: "mask", sign: "▦", meaning: "mask", text: typeof entry.mask === "string" ? entry.mask : "run lengths" });
  if (entry.query_points?.length) {
    const text = `${counted(entry.query_points.length, "point")}, tracked instead of sampled points`;
    parts.push({ kind: "query_points", sign: "◆", meaning: "query points", text });
  }
  return parts;
}

function originOf(entry) {
  if (!isLocated(entry)) return `${entry.count ? `count ${entry.count}, ` : ""}found by the detector of a run`;
  return entry.score === undefined ? "changed by hand" : `found with score ${entry.score.toFixed(2)}`;
}

function factsOf(id, prompts, frame, masks, size) {
  const mask = masks.find((other) => other.object_id === id);
  if (mask) return mask.note || maskFacts(mask, size);
  const entry = prompts.at(id, frame);
  if (entry) return entry.text && !isLocated(entry) ? "found by the detector of a run" : "…";
  const frames = prompts.entries.filter((entry) => entry.id === id).map((entry) => entry.frame);
  return frames.length ? `prompted on frame ${frames.sort((a, b) => a - b).join(", ")}` : "no prompt yet";
}

export function maskFacts(mask, size) {
  const percent = ((100 * mask.area) / (size.width * size.height)).toFixed(1);
  return `${mask.area.toLocaleString("en")} px (${percent} %), score ${mask.score.toFixed(2)}`;
}

function sameParts(a, b) {
  return a.kind === b.kind && a.index === b.index;
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function cross() {
  const template = document.createElement("template");
  template.innerHTML = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 4l8 8M12 4l-8 8"/></svg>';
  return template.content.firstChild;
}
