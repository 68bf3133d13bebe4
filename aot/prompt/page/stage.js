// The frame with its prompts and masks: drawing, zoom, pan and pointer events.
//
// Pixel centres are at integers, so the left edge of the frame is at -0.5.

import { labelsOf } from "./prompts.js";

const POINT_RADIUS = 7;
const HANDLE = 9;
const EDGE = 5;
const CLICK_PX = 4;
const MAX_ZOOM = 40;
const FINE_SCALE = 2;

export class Stage {
  /**
   * handlers: point(xy, label), box(xy0xy1), move(id, index, xy), resize(id, box), select(part), choose(id),
   * zoom(percent)
   */
  constructor(element, canvas, handlers) {
    this.element = element;
    this.canvas = canvas;
    this.handlers = handlers;
    this.palette = [];
    this.size = { width: 0, height: 0 };
    this.view = { scale: 1, x: 0, y: 0, isFit: true };
    this.image = null; // the image of the frame, which can be clicked
    this.shown = null; // what is drawn: that image, or dimmed the one before it
    this.masks = [];
    this.entries = [];
    this.active = 1;
    this.selected = null;
    this.areMasksShown = true;
    this.cross = null;
    this.corner = null;
    this.drag = null;
    this.touches = new Map(); // the fingers on the stage: pointer id → position
    new ResizeObserver(() => this.#onResize()).observe(element);
    element.addEventListener("pointerdown", (event) => this.#onDown(event));
    element.addEventListener("pointermove", (event) => this.#onMove(event));
    element.addEventListener("pointerup", (event) => this.#onUp(event));
    element.addEventListener("pointercancel", (event) => {
      this.touches.delete(event.pointerId);
      this.#endDrag();
    });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
  }

  colour(id) {
    return this.palette.length ? `rgb(${this.palette[(id - 1) % this.palette.length].join(" ")})` : "currentcolor";
  }

  /** Reset for another clip. */
  open(width, height) {
    this.size = { width, height };
    this.image = null;
    this.shown = null;
    this.masks = [];
    this.corner = null;
    if (this.cross) this.cross = [Math.round(width / 2), Math.round(height / 2)];
    this.fit();
  }

  /** Dim the image, which is that of another frame, and ignore clicks until `show`. */
  wait() {
    this.image = null;
    this.cancelDrag();
    this.element.classList.add("waiting");
  }

  /** Show the image of the frame; null: there is none, and clicks are still ignored. */
  show(image) {
    this.image = image;
    this.shown = image;
    this.element.classList.toggle("waiting", !image);
    this.draw();
  }

  /** End a drag without an effect; returns whether there was one. */
  cancelDrag() {
    const isDragging = this.drag !== null;
    if (isDragging) this.#endDrag();
    return isDragging;
  }

  update(values) {
    Object.assign(this, values);
    this.draw();
  }

  fit() {
    const { clientWidth, clientHeight } = this.element;
    const { width, height } = this.size;
    if (!width || !clientWidth) return;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    this.view = {
      scale,
      x: (clientWidth - width * scale) / 2,
      y: (clientHeight - height * scale) / 2,
      isFit: true,
    };
    this.#onView();
  }

  zoom(factor, at = [this.element.clientWidth / 2, this.element.clientHeight / 2]) {
    const { scale, x, y } = this.view;
    const fit = Math.min(this.element.clientWidth / this.size.width, this.element.clientHeight / this.size.height);
    const next = Math.min(Math.max(scale * factor, fit), MAX_ZOOM);
    if (next <= fit) {
      this.fit();
      return;
    }
    this.view = {
      scale: next,
      x: at[0] - ((at[0] - x) * next) / scale,
      y: at[1] - ((at[1] - y) * next) / scale,
      isFit: false,
    };
    this.#keepInSight();
    this.#onView();
  }

  toggleCross() {
    this.corner = null;
    this.cross = this.cross ? null : [Math.round(this.size.width / 2), Math.round(this.size.height / 2)];
    this.draw();
    return this.cross !== null;
  }

  moveCross(dx, dy) {
    this.cross = this.#inside([this.cross[0] + dx, this.cross[1] + dy]);
    const [x, y] = this.#onScreen(this.cross);
    const { clientWidth, clientHeight } = this.element;
    this.view.x += x < 20 ? 20 - x : x > clientWidth - 20 ? clientWidth - 20 - x : 0;
    this.view.y += y < 20 ? 20 - y : y > clientHeight - 20 ? clientHeight - 20 - y : 0;
    this.draw();
  }

  /** Use the crosshair's position as a corner of a box; returns the box after the second corner. */
  crossCorner() {
    if (!this.corner) {
      this.corner = [...this.cross];
      this.draw();
      return null;
    }
    const box = boxOf(this.corner, this.cross);
    this.corner = null;
    return box;
  }

  // Pointer -----------------------------------------------------------------------------------------------------

  #onDown(event) {
    if (!this.image || this.element.classList.contains("loading")) return;
    this.element.focus({ preventScroll: true });
    const at = this.#pointer(event);
    if (event.pointerType === "touch") {
      this.touches.set(event.pointerId, at);
      this.element.setPointerCapture(event.pointerId);
      if (this.touches.size > 1) {
        this.cancelDrag(); // a second finger: the first one does not click
        event.preventDefault();
        return;
      }
    }
    const isPan = event.button === 1 || (event.button === 0 && event.shiftKey);
    const isNegative = event.button === 2 || (event.button === 0 && event.altKey);
    if (event.button > 2) return;
    const hit = isPan || isNegative ? null : this.#hit(at);
    this.drag = { at, now: at, start: { ...this.view }, isPan, isNegative, hit, hasMoved: false };
    this.element.classList.toggle("panning", isPan);
    this.element.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  #onMove(event) {
    if (this.touches.has(event.pointerId) && this.touches.size > 1) {
      this.#pinch(event);
      return;
    }
    const { drag } = this;
    if (!drag) return;
    drag.now = this.#pointer(event);
    const moved = Math.hypot(drag.now[0] - drag.at[0], drag.now[1] - drag.at[1]);
    drag.hasMoved ||= moved >= CLICK_PX;
    if (drag.isPan) {
      this.view.x = drag.start.x + drag.now[0] - drag.at[0];
      this.view.y = drag.start.y + drag.now[1] - drag.at[1];
      this.view.isFit = false;
      this.#keepInSight();
    }
    this.draw();
  }

  /** Zoom and pan by two fingers: what is below them stays below them. */
  #pinch(event) {
    const [first, second] = [...this.touches.values()];
    const between = [(first[0] + second[0]) / 2, (first[1] + second[1]) / 2];
    const distance = Math.hypot(first[0] - second[0], first[1] - second[1]);
    this.touches.set(event.pointerId, this.#pointer(event));
    const [one, other] = [...this.touches.values()];
    const now = [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    this.view.x += now[0] - between[0];
    this.view.y += now[1] - between[1];
    this.view.isFit = false;
    if (distance) this.zoom(Math.hypot(one[0] - other[0], one[1] - other[1]) / distance, now);
  }

  #onUp(event) {
    const { drag } = this;
    this.touches.delete(event.pointerId);
    this.#endDrag();
    if (!drag || drag.isPan) return;
    const { hit } = drag;
    if (!drag.hasMoved) {
      if (hit?.kind === "point") this.handlers.select({ id: hit.id, part: { kind: "point", index: hit.index } });
      else if (this.#isOnFrame(drag.at)) this.handlers.point(this.#source(drag.at), drag.isNegative ? 0 : 1);
    } else if (hit?.kind === "point") {
      this.handlers.move(hit.id, hit.index, this.#source(drag.now));
    } else if (hit?.resized) {
      const box = hit.resized(this.#source(drag.now));
      if (box) this.handlers.resize(hit.id, box);
    } else if (!drag.isNegative) {
      const box = boxOf(this.#source(drag.at), this.#source(drag.now));
      if (box) this.handlers.box(box);
    }
  }

  #endDrag() {
    this.drag = null;
    this.element.classList.remove("panning");
    this.draw();
  }

  #onWheel(event) {
    event.preventDefault();
    this.zoom(2 ** (-event.deltaY / 300), this.#pointer(event));
  }

  #pointer(event) {
    const frame = this.element.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  /** The point or box corner of the active object under the pointer. */
  #hit(at) {
    const near = (xy) => Math.hypot(...this.#onScreen(xy).map((value, axis) => value - at[axis])) <= HANDLE;
    for (const entry of this.entries.filter(({ id }) => id === this.active)) {
      const index = (entry.points ?? []).findLastIndex(near);
      if (index >= 0) return { kind: "point", id: entry.id, index };
      if (!entry.box) continue;
      const [x0, y0, x1, y1] = entry.box;
      const corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
      const corner = corners.findIndex(near);
      if (corner >= 0) {
        const opposite = corners[(corner + 2) % 4];
        return { kind: "corner", id: entry.id, resized: (xy) => boxOf(opposite, xy) };
      }
      const edge = this.#hitEdge(at, entry.box);
      if (edge) return { kind: "edge", id: entry.id, resized: edge };
    }
    return null;
  }

  /** A box's edge under the pointer: its middle stretches the box, the rest of it moves the box. */
  #hitEdge(at, [x0, y0, x1, y1]) {
    const [left, top] = this.#onScreen([x0, y0]);
    const [right, bottom] = this.#onScreen([x1, y1]);
    const isBeside = at[0] > left && at[0] < right;
    const isBetween = at[1] > top && at[1] < bottom;
    const isNear = (one, other) => Math.abs(one - other) <= EDGE;
    const side = isBetween && isNear(at[0], left) ? 0 : isBeside && isNear(at[1], top) ? 1
      : isBetween && isNear(at[0], right) ? 2 : isBeside && isNear(at[1], bottom) ? 3 : null;
    if (side === null) return null;
    const along = side % 2 ? [at[0], left, right] : [at[1], top, bottom];
    if (Math.abs(along[0] - (along[1] + along[2]) / 2) <= HANDLE) {
      return (xy) => {
        const box = [x0, y0, x1, y1];
        box[side] = xy[side % 2];
        return boxOf(box.slice(0, 2), box.slice(2));
      };
    }
    const from = this.#source(at);
    const { width, height } = this.size;
    return (xy) => {
      const dx = Math.min(Math.max(xy[0] - from[0], -x0), width - 1 - x1);
      const dy = Math.min(Math.max(xy[1] - from[1], -y0), height - 1 - y1);
      return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
    };
  }

  #isOnFrame([x, y]) {
    const [left, top] = this.#onScreen([-0.5, -0.5]);
    const [right, bottom] = this.#onScreen([this.size.width - 0.5, this.size.height - 0.5]);
    return x >= left && x <= right && y >= top && y <= bottom;
  }

  // Coordinates -------------------------------------------------------------------------------------------------

  #source([x, y]) {
    return this.#inside([(x - this.view.x) / this.view.scale - 0.5, (y - this.view.y) / this.view.scale - 0.5]);
  }

  #inside([x, y]) {
    const step = this.view.scale >= FINE_SCALE ? 10 : 1;
    const round = (value, most) => Math.round(Math.min(Math.max(value, 0), most - 1) * step) / step;
    return [round(x, this.size.width), round(y, this.size.height)];
  }

  #onScreen([x, y]) {
    return [(x + 0.5) * this.view.scale + this.view.x, (y + 0.5) * this.view.scale + this.view.y];
  }

  #keepInSight() {
    const { clientWidth, clientHeight } = this.element;
    const { scale } = this.view;
    const kept = (offset, room, extent) =>
      extent <= room ? (room - extent) / 2 : Math.min(0, Math.max(room - extent, offset));
    this.view.x = kept(this.view.x, clientWidth, this.size.width * scale);
    this.view.y = kept(this.view.y, clientHeight, this.size.height * scale);
  }

  #onResize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.element.clientWidth * ratio);
    this.canvas.height = Math.round(this.element.clientHeight * ratio);
    if (this.view.isFit) this.fit();
    else this.#keepInSight();
    this.#paint();
  }

  #onView() {
    this.handlers.zoom(Math.round(this.view.scale * 100));
    this.draw();
  }

  // Drawing -----------------------------------------------------------------------------------------------------

  draw() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.#paint();
    });
  }

  #paint() {
    const context = this.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const { scale, x, y } = this.view;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    context.imageSmoothingEnabled = scale < FINE_SCALE;
    context.imageSmoothingQuality = "high";
    if (this.shown) context.drawImage(this.shown, 0, 0, this.size.width, this.size.height);
    if (this.areMasksShown) {
      for (const mask of this.masks) if (mask.image) context.drawImage(mask.image, mask.x, mask.y);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const entry of this.entries) if (entry.id !== this.active) this.#paintEntry(context, entry);
    for (const entry of this.entries) if (entry.id === this.active) this.#paintEntry(context, entry);
    this.#paintDrag(context);
    if (this.cross) this.#paintCross(context);
  }

  #paintEntry(context, entry) {
    const isActive = entry.id === this.active;
    const { drag } = this;
    const moving = drag?.hasMoved && drag.hit?.id === entry.id ? drag.hit : null;
    context.globalAlpha = isActive ? 1 : 0.7;
    if (entry.box) {
      const box = moving?.resized ? moving.resized(this.#source(drag.now)) : entry.box;
      if (box) this.#paintBox(context, box, this.colour(entry.id), isActive);
    }
    for (const [, x, y] of entry.query_points ?? []) this.#paintDiamond(context, [x, y], this.colour(entry.id));
    const labels = labelsOf(entry);
    (entry.points ?? []).forEach((point, index) => {
      const isMoving = moving?.kind === "point" && moving.index === index;
      const isSelected =
        this.selected?.id === entry.id && this.selected.part.kind === "point" && this.selected.part.index === index;
      this.#paintPoint(context, isMoving ? this.#source(drag.now) : point, labels[index], entry.id, isSelected);
    });
    context.globalAlpha = 1;
  }

  #paintPoint(context, point, label, id, isSelected) {
    const [x, y] = this.#onScreen(point);
    const radius = isSelected ? POINT_RADIUS + 2 : POINT_RADIUS;
    context.beginPath();
    context.arc(x, y, radius + 1.5, 0, 2 * Math.PI);
    context.fillStyle = isSelected ? "#000" : "#fff";
    context.fill();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = label ? this.colour(id) : "#fff";
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = label ? "#fff" : this.colour(id);
    context.stroke();
    context.beginPath();
    context.moveTo(x - 3.5, y);
    context.lineTo(x + 3.5, y);
    if (label) {
      context.moveTo(x, y - 3.5);
      context.lineTo(x, y + 3.5);
    }
    context.strokeStyle = "#10141a";
    context.stroke();
  }

  #paintBox(context, [x0, y0, x1, y1], colour, hasHandles) {
    const [left, top] = this.#onScreen([x0, y0]);
    const [right, bottom] = this.#onScreen([x1, y1]);
    const outline = () => context.strokeRect(left, top, right - left, bottom - top);
    context.lineWidth = 4;
    context.strokeStyle = "rgb(0 0 0 / 55%)";
    outline();
    context.lineWidth = 2;
    context.strokeStyle = colour;
    outline();
    if (!hasHandles) return;
    const middle = [(left + right) / 2, (top + bottom) / 2];
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    const edges = [[left, middle[1]], [middle[0], top], [right, middle[1]], [middle[0], bottom]];
    for (const [x, y] of [...corners, ...edges]) {
      context.fillStyle = "#fff";
      context.fillRect(x - 4, y - 4, 8, 8);
      context.fillStyle = colour;
      context.fillRect(x - 3, y - 3, 6, 6);
    }
  }

  #paintDiamond(context, point, colour) {
    const [x, y] = this.#onScreen(point);
    context.beginPath();
    for (const [dx, dy] of [[0, -6], [6, 0], [0, 6], [-6, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = "#fff";
    context.stroke();
  }

  #paintDrag(context) {
    const { drag } = this;
    if (!drag?.hasMoved || drag.isPan || drag.isNegative || drag.hit) return;
    const box = boxOf(this.#source(drag.at), this.#source(drag.now));
    if (box) this.#paintBox(context, box, this.colour(this.active), false);
  }

  #paintCross(context) {
    const [x, y] = this.#onScreen(this.cross);
    const { clientWidth, clientHeight } = this.element;
    if (this.corner) {
      const box = boxOf(this.corner, this.cross);
      if (box) this.#paintBox(context, box, this.colour(this.active), false);
    }
    for (const [width, colour] of [[3, "rgb(0 0 0 / 60%)"], [1, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      for (const [from, to] of [
        [[0, y], [x - 6, y]], [[x + 6, y], [clientWidth, y]], [[x, 0], [x, y - 6]], [[x, y + 6], [x, clientHeight]],
      ]) {
        context.moveTo(...from);
        context.lineTo(...to);
      }
      context.stroke();
    }
  }
}

/** [x0, y0, x1, y1] of two corners; null if a side is shorter than 1 px. */
function boxOf(a, b) {
  const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  return box[2] - box[0] >= 1 && box[3] - box[1] >= 1 ? box : null;
}
