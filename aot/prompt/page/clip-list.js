// The list of clips: only the visible rows exist, and only their thumbnails are loaded.

import * as api from "./api.js";
import { printable, showName } from "./text.js";

const ROW_HEIGHT = 60;
const ROWS_BEYOND = 4;
const MAX_THUMBNAILS = 600;
const THUMBNAILS_AT_ONCE = 2;
const STATE_CLASS = { "no prompt": "", prompted: "accent", done: "good" };

export class ClipListView {
  constructor(element, onChoose) {
    this.element = element;
    this.onChoose = onChoose;
    this.clips = [];
    this.selected = null;
    this.rows = new Map();
    this.thumbnails = new Thumbnails();
    this.canvas = document.createElement("div");
    this.canvas.className = "clip-rows";
    this.canvas.role = "presentation";
    element.append(this.canvas);
    this.observer = new IntersectionObserver((seen) => this.#onSeen(seen), { root: element });
    element.addEventListener("scroll", () => this.#render(), { passive: true });
    new ResizeObserver(() => this.#render()).observe(element);
    element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Show these clips: [{clip_id, state, num_objects, pattern}]. */
  show(clips) {
    this.clips = clips;
    this.canvas.style.height = `${clips.length * ROW_HEIGHT}px`;
    for (const row of this.rows.values()) this.#drop(row);
    this.rows.clear();
    this.#render();
  }

  select(clipId) {
    this.selected = clipId;
    const place = this.clips.findIndex((clip) => clip.clip_id === clipId);
    if (place >= 0) {
      const top = place * ROW_HEIGHT;
      const { scrollTop, clientHeight } = this.element;
      if (top < scrollTop) this.element.scrollTop = top;
      else if (top + ROW_HEIGHT > scrollTop + clientHeight) this.element.scrollTop = top + ROW_HEIGHT - clientHeight;
    }
    this.#render();
  }

  /** The clip `step` places from the selected one in the filtered list. */
  neighbour(step) {
    const place = this.clips.findIndex((clip) => clip.clip_id === this.selected);
    if (place < 0) return this.clips[0]?.clip_id;
    return this.clips[Math.min(Math.max(place + step, 0), this.clips.length - 1)]?.clip_id;
  }

  #onKey(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW_HEIGHT) - 1);
    const steps = { PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const ends = { Home: this.clips[0]?.clip_id, End: this.clips.at(-1)?.clip_id };
    const next = ends[event.key] ?? this.neighbour(steps[event.key]);
    if (next) this.onChoose(next);
  }

  #render() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - ROWS_BEYOND);
    const last = Math.min(this.clips.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + ROWS_BEYOND);
    for (const [place, row] of this.rows) {
      if (place < first || place >= last) {
        this.#drop(row);
        this.rows.delete(place);
      }
    }
    for (let place = first; place < last; place += 1) {
      if (!this.rows.has(place)) this.rows.set(place, this.#make(place));
      const row = this.rows.get(place);
      row.ariaSelected = String(this.clips[place].clip_id === this.selected);
    }
    const selected = [...this.rows.values()].find((row) => row.ariaSelected === "true");
    if (selected) this.element.setAttribute("aria-activedescendant", selected.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #make(place) {
    const clip = this.clips[place];
    const row = document.createElement("div");
    row.className = "clip-row";
    row.id = `clip-${place}`;
    row.role = "option";
    row.ariaSetSize = String(this.clips.length);
    row.ariaPosInSet = String(place + 1);
    row.style.top = `${place * ROW_HEIGHT}px`;
    row.title = printable(clip.clip_id);
    row.dataset.clip = clip.clip_id;
    const thumbnail = document.createElement("span");
    thumbnail.className = "blank";
    const text = document.createElement("span");
    const name = document.createElement("span");
    name.className = "name";
    showName(name, clip.clip_id);
    const state = document.createElement("span");
    state.className = `state ${STATE_CLASS[clip.state] ?? ""}`;
    state.textContent = clip.state;
    text.append(name, state);
    if (clip.num_objects > 1) {
      const count = document.createElement("span");
      count.className = "count muted numbers";
      count.textContent = ` ×${clip.num_objects}`;
      count.title = `${clip.num_objects} objects`;
      text.append(count);
    }
    row.append(thumbnail, text);
    row.addEventListener("click", () => this.onChoose(clip.clip_id));
    this.canvas.append(row);
    this.observer.observe(row);
    return row;
  }

  #drop(row) {
    this.observer.unobserve(row);
    this.thumbnails.forget(row.dataset.clip);
    row.remove();
  }

  #onSeen(seen) {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) this.thumbnails.forget(target.dataset.clip);
      else this.thumbnails.want(target.dataset.clip, (url) => this.#thumbnail(target, url));
    }
  }

  #thumbnail(row, url) {
    const place = row.querySelector(".blank");
    if (!place) return;
    const image = document.createElement("img");
    image.alt = "";
    image.src = url;
    place.replaceWith(image);
  }
}

/** Loads thumbnails, newest request first and few at a time, so that they do not delay the shown frame. */
class Thumbnails {
  constructor() {
    this.known = new Map();
    this.wanted = new Map();
    this.running = new Map();
  }

  want(clipId, show) {
    if (this.known.has(clipId)) show(this.known.get(clipId));
    else {
      this.wanted.set(clipId, show);
      this.#next();
    }
  }

  forget(clipId) {
    this.wanted.delete(clipId);
    this.running.get(clipId)?.abort();
  }

  async #next() {
    while (this.running.size < THUMBNAILS_AT_ONCE && this.wanted.size) {
      const [clipId, show] = [...this.wanted].at(-1);
      this.wanted.delete(clipId);
      const abort = new AbortController();
      this.running.set(clipId, abort);
      this.#fetch(clipId, abort.signal, show).finally(() => {
        this.running.delete(clipId);
        this.#next();
      });
    }
  }

  async #fetch(clipId, signal, show) {
    try {
      const url = URL.createObjectURL(await api.thumbnail(clipId, signal));
      this.known.set(clipId, url);
      if (this.known.size > MAX_THUMBNAILS) {
        const [oldest, oldUrl] = this.known.entries().next().value;
        this.known.delete(oldest);
        URL.revokeObjectURL(oldUrl);
      }
      show(url);
    } catch {
      // The reason is shown when the clip is opened.
    }
  }
}
