// The prompts of one clip and their undo history; independent of the page.
//
// An entry is one object's prompt on one frame: {id, frame, name?, box?, points?, labels?, mask?, mask_id?, query_points?}.
// With text, a detector has found its box or mask (score?, model?), or is to find it (frames?, count?, min_score?).
// Entries are immutable, so that a step of the history is a list of entries.

const MAX_STEPS = 500;
// Of the objects of one description with count: all.
const MAX_FOUND = 20;

export class ClipPrompts {
  constructor(entries) {
    this.past = [];
    this.future = [];
    const active = Math.min(...entries.map((entry) => entry.id), Infinity);
    this.now = { entries, named: {}, added: [], active: Number.isFinite(active) ? active : 1 };
  }

  get entries() {
    return this.now.entries;
  }

  get active() {
    return this.now.active;
  }

  /** Ids of all objects, including those without a prompt. */
  get ids() {
    const ids = new Set([...this.now.entries.map((entry) => entry.id), ...this.now.added, this.now.active]);
    return [...ids].sort((a, b) => a - b);
  }

  get frames() {
    return [...new Set(this.now.entries.map((entry) => entry.frame))].sort((a, b) => a - b);
  }

  name(id) {
    const own = this.now.entries.filter((entry) => entry.id === id);
    return own.find((entry) => entry.name)?.name ?? this.now.named[id] ?? own.find((entry) => entry.text)?.text ?? "";
  }

  at(id, frame) {
    return this.now.entries.find((entry) => entry.id === id && isOn(entry, frame));
  }

  on(frame) {
    return this.now.entries.filter((entry) => entry.frame === frame).sort((a, b) => a.id - b.id);
  }

  /** Select an object; this is not a step of the history. */
  choose(id) {
    const added = this.ids.includes(id) ? this.now.added : [...this.now.added, id];
    this.now = { ...this.now, active: id, added };
  }

  addObject() {
    this.choose(Math.max(0, ...this.ids) + 1);
  }

  /** Replace all entries, as one step of the history. */
  replace(entries) {
    this.#step({ entries });
  }

  rename(id, name) {
    const own = this.now.entries.filter((entry) => entry.id === id);
    const bearers = own.some((entry) => entry.name) ? own.filter((entry) => entry.name) : own.slice(0, 1);
    const entries = this.now.entries.map((entry) => (bearers.includes(entry) ? withName(entry, name) : entry));
    this.#step({ entries, named: { ...this.now.named, [id]: name } });
  }

  addPoint(frame, point, label) {
    const entry = this.#begun(frame);
    this.#put({ ...entry, points: [...(entry.points ?? []), point], labels: [...labelsOf(entry), label] });
  }

  movePoint(id, frame, index, point) {
    const entry = this.at(id, frame);
    this.#put({ ...entry, points: entry.points.map((other, number) => (number === index ? point : other)) });
  }

  setBox(frame, box, id = this.now.active) {
    this.#put({ ...(this.at(id, frame) ?? this.#begun(frame)), frame, box });
  }

  /** The objects of a detector that it has not found before. */
  newOf(found) {
    const placeOf = ({ frame, text, box, mask }) => JSON.stringify([frame, text, box, mask]);
    const known = new Set(this.now.entries.map(placeOf));
    return found.filter((entry) => !known.has(placeOf(entry)));
  }

  /** Add objects that a detector has found, as one step: the active object if it has no prompt, then free ids. */
  addFound(found) {
    const taken = new Set(this.now.entries.flatMap(idsOf));
    let id = taken.has(this.now.active) ? 1 : this.now.active;
    const added = found.map((entry) => {
      while (taken.has(id)) id += 1;
      taken.add(id);
      const name = this.now.named[id];
      return name ? withName({ ...entry, id }, name) : { ...entry, id };
    });
    this.#step({ entries: [...this.now.entries, ...added], active: added[0].id });
  }

  /** Remove one part of an entry: {kind: "box" | "mask" | "query_points"} or {kind: "point", index}. */
  remove(id, frame, part) {
    const entry = { ...this.at(id, frame), frame };
    if (part.kind === "point") {
      const keep = (_, number) => number !== part.index;
      entry.labels = labelsOf(entry).filter(keep);
      entry.points = entry.points.filter(keep);
    } else {
      delete entry[part.kind];
      if (part.kind === "mask") delete entry.mask_id;
      if (part.kind === "text") entry.name ??= this.name(id);
    }
    if (part.kind === "query_points") this.#write(entry);
    else this.#put(entry);
  }

  removeObject(id) {
    const entries = this.now.entries.filter((entry) => entry.id !== id);
    const added = this.now.added.filter((other) => other !== id);
    const left = [...new Set([...entries.map((entry) => entry.id), ...added])].sort((a, b) => a - b);
    const nearest = left.findLast((other) => other < id) ?? left[0] ?? 1;
    this.#step({ entries, added, active: this.now.active === id ? nearest : this.now.active, named: omit(this.now.named, id) });
  }

  /** Undo one step; returns whether there was one. */
  undo() {
    return this.#go(this.past, this.future);
  }

  redo() {
    return this.#go(this.future, this.past);
  }

  #go(from, to) {
    if (!from.length) return false;
    to.push(this.now);
    this.now = from.pop();
    return true;
  }

  #begun(frame) {
    const id = this.now.active;
    const entry = { ...(this.at(id, frame) ?? { id }), frame };
    const isFirst = !this.now.entries.some((other) => other.id === id);
    return isFirst && this.now.named[id] ? withName(entry, this.now.named[id]) : entry;
  }

  /** Write an entry whose object was marked by hand. */
  #put(entry) {
    this.#write(edited(entry, this.name(entry.id)));
  }

  /** Replace an entry, or append it; an empty one is removed and its name moves to the object's next entry. */
  #write(entry) {
    const isSame = (other) => other.id === entry.id && isOn(other, entry.frame);
    const clean = cleaned(entry);
    const place = this.now.entries.findIndex(isSame);
    let entries = [...this.now.entries];
    if (!clean) {
      const name = this.name(entry.id);
      entries.splice(place, 1);
      const heir = entries.findIndex((other) => other.id === entry.id);
      if (name && heir >= 0 && !entries.some((other) => other.id === entry.id && other.name)) {
        entries[heir] = withName(entries[heir], name);
      }
      this.#step({ entries, named: { ...this.now.named, [entry.id]: name }, added: [...this.now.added, entry.id] });
      return;
    }
    if (place < 0) entries.push(clean);
    else entries[place] = clean;
    this.#step({ entries });
  }

  #step(changes) {
    this.past.push(this.now);
    if (this.past.length > MAX_STEPS) this.past.shift();
    this.future = [];
    this.now = { ...this.now, ...changes };
  }
}

/** The labels of an entry; without labels, all points are object points. */
export function labelsOf(entry) {
  return entry.labels?.length ? entry.labels : (entry.points ?? []).map(() => 1);
}

/** The ids that an entry has or may get. */
function idsOf({ id, count = 1 }) {
  return Array.from({ length: count === "all" ? MAX_FOUND : count }, (_, number) => id + number);
}

/** Whether a prompt is on a frame, or is to be found on it. */
function isOn(entry, frame) {
  return entry.frame === frame || Boolean(entry.frames?.includes(frame));
}

/** Whether an entry marks its object by itself. */
export function isLocated(entry) {
  return Boolean(entry.box || entry.mask || entry.points?.length);
}

/**
 * An entry that was edited by hand: its score is not that of what it marks now, and no detector looks for it. Words stay
 * beside a box or a mask only, otherwise they become the name.
 */
function edited({ text, score, model, frames, count, min_score: minScore, ...entry }, name) {
  if (entry.box || entry.mask) return text ? { ...entry, text } : entry;
  return text && !entry.name ? withName(entry, name) : entry;
}

function withName(entry, name) {
  return name ? { ...entry, name } : omit(entry, "name");
}

function cleaned(entry) {
  const { points = [], labels = [], ...rest } = entry;
  if (points.length) return { ...rest, points, labels };
  return rest.box || rest.mask || rest.query_points?.length || rest.text ? rest : null;
}

function omit(values, key) {
  return Object.fromEntries(Object.entries(values).filter(([name]) => name !== String(key)));
}
