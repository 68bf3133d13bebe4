"""Masks without weights: GrabCut on the prompt, carried from frame to frame by dense optical flow.

    prompt frame         box, points ──> colours that the surroundings lack ──> GrabCut ──> mask
    every other frame    the mask before ──> DIS flow ──> + colours seen so far ──> GrabCut where unsure ──> mask

All of it happens at a reduced size, in a window around each object; of a clip nothing is held but the frame before.

Sources: GrabCut, Rother et al. 2004; DIS flow, arXiv:1603.03590.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le

from aot.decoding.base import FrameSource
from aot.errors import AotError, OutOfMemory, SegmentationError
from aot.segmentation.base import FrameSession, OnObjectError
from aot.types import BoolArray, Float32Array, Int32Array, Int64Array, MaskBlock, Prompt, UInt8Array

# Lab at 16 levels a channel, smoothed: finer bins remember the prompt frame's noise rather than the object's colours.
_BITS = 4
_LEVELS = 1 << _BITS
# Share below which a colour counts as never seen, and the most that colour alone may say (in units of log odds).
_RARE = 1e-4
_COLOUR_LIMIT = 3.0
_COLOUR_WEIGHT = 0.35
# A pixel's colour is judged with its neighbours', in px.
_COLOUR_BLUR = 1.0
# What the last frames say of colours, beside what the prompt frame said.
_RECENT_SHARE = 0.5
# Beyond this distance from the carried outline, in object sizes (square root of the area), colour alone cannot win.
_REACH = 0.16
# Stands for certainty where log odds are asked for.
_CERTAIN = 20.0
# Evidence (log odds) up to which GrabCut may decide otherwise.
_UNSURE = 1.0
# Room around an object, in object sizes, that serves as its background; flow and GrabCut see nothing else.
_MARGIN = 0.4
_MIN_MARGIN = 24
_MIN_FLOW_SIZE = 32
# A clicked point marks a disc of this radius, in object sizes.
_DISC = 0.08
# Around lone points the object is looked for within this share of the frame's height.
_POINT_REACH = 0.2
# A colour that the ring around the box shows within this distance (8-bit Lab) is background to begin with.
_SAME_COLOUR = 3.0
# Where less than this share of the box is unlike the ring, colours do not tell and the whole box stays.
_MIN_UNLIKE = 0.05
_RING = 0.3
# A mask shorter or narrower than this share of its box is a part of the object: the whole box is tried then.
_MIN_EXTENT = 0.7
_RING_SAMPLES = 3000
# GrabCut fits mixtures of this many colours to object and to background.
_GRABCUT_COLOURS = 5
_GRABCUT_MODEL_SIZE = 13 * _GRABCUT_COLOURS
# On carried frames a window of more pixels than this is cut at a smaller size: a large object has no need of the
# detail a small one has. Camel of DAVIS: 39 ms of one core a frame in place of 100.
_MAX_PIXELS = 20000

_Window = tuple[slice, slice]
_Histograms = tuple[Float32Array, Float32Array]


@dataclass(frozen=True, eq=False)
class _View:
    """One frame at working size."""

    lab: UInt8Array
    """(h, w, 3) 8-bit Lab."""
    grey: UInt8Array
    """(h, w)."""


@dataclass(frozen=True, eq=False)
class _Tracked:
    """What is known of one object when a frame has been done."""

    mask: BoolArray
    """(h, w) on that frame."""
    prompted: _Histograms
    """Colours of object and surroundings on the prompt frame: these do not drift."""
    recent: _Histograms
    """The same, averaged over the last frames: these follow light and pose."""


@dataclass(frozen=True, eq=False)
class _PromptAt:
    """A prompt in working px."""

    points: list[tuple[tuple[int, int], bool]]
    """((x, y), whether it lies on the object), those of other objects among them."""
    box: tuple[int, int, int, int] | None
    """x0, y0, x1, y1; x1 and y1 lie outside."""
    mask: BoolArray | None
    """(h, w)."""

    @property
    def has_object_points(self) -> bool:
        return any(is_object for _, is_object in self.points)


@dataclass(frozen=True, eq=False)
class _Claim:
    """Where one object says it is on a frame, before others have been heard."""

    mask: BoolArray
    """(h, w)."""
    evidence: Float32Array
    """(h, w) log odds that a pixel is the object's; decides between objects and gives the score."""


class GrabCutSegmenter:
    """Segments prompted objects with OpenCV alone: no weights, no GPU.

    Args:
        propagate: carry the masks to all kept frames; False: masks of the prompt frames alone.
        working_height: frames taller than this are segmented at this height, in px; masks come at source size.
        prompt_iterations: GrabCut iterations on a prompt frame.
        iterations: GrabCut iterations on every other frame.
        memory: share of the newest frame in the running colour models; 1 remembers one frame only.
    """

    def __init__(
        self,
        propagate: bool = True,
        working_height: Annotated[int, Ge(16)] = 240,
        prompt_iterations: Annotated[int, Ge(1)] = 5,
        iterations: Annotated[int, Ge(1)] = 1,
        memory: Annotated[float, Gt(0), Le(1)] = 0.3,
    ) -> None:
        self.propagate = propagate
        self.working_height = working_height
        self.prompt_iterations = prompt_iterations
        self.iterations = iterations
        self.memory = memory

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        """Yield one frame's masks at a time: forwards from the first prompt, then backwards for what began later.

        A mask's score is the mean probability of its pixels under position and colours: 1 for a mask that was given,
        0.5 where nothing speaks for or against it, 0 for an empty mask.
        """
        run = _ClipRun(self, frames, prompts, on_object_error)
        try:
            yield from run.forwards()
            if self.propagate:
                yield from run.backwards()
        except cv2.error as exc:
            raise _as_aot_error(exc, frames.width, frames.height) from exc

    def open_frame(self, rgb: UInt8Array) -> FrameSession:
        """Take in a frame for prompts that come one by one."""
        return _GrabCutFrame(self, rgb)

    def claim_prompt(self, view: _View, prompt: _PromptAt, carried: BoolArray | None) -> _Claim:
        """Find an object where its prompt says it is.

        Args:
            view: the prompt frame.
            prompt: the prompt in working px.
            carried: where the object was expected on this frame; None: never seen before.
        """
        if prompt.mask is not None:
            return _Claim(prompt.mask, np.where(prompt.mask, _CERTAIN, -_CERTAIN).astype(np.float32))
        if prompt.box is None and carried is not None and carried.any():
            mask = self._cut_prompt(view, _trimap_of_correction(carried), prompt)
        else:
            box = prompt.box or _box_around(prompt, view)
            mask = self._cut_prompt(view, _trimap_of_box(view, box, unlike_ring=True), prompt)
            if prompt.box is not None and not _fills(mask, box):
                mask = self._cut_prompt(view, _trimap_of_box(view, box, unlike_ring=False), prompt)
        if prompt.box is None and prompt.has_object_points:
            mask = _parts_at(mask, prompt)
        return _Claim(mask, _log_odds(view, mask, _histograms(view, mask)))

    def claim_carried(self, before: _View, view: _View, tracked: _Tracked) -> _Claim:
        """Find an object that was seen on the frame before."""
        expected = self._carry(before, view, tracked.mask)
        if not expected.any():
            return _Claim(expected, np.full(expected.shape, -_CERTAIN, np.float32))
        colours = _blend(tracked.prompted, tracked.recent, _RECENT_SHARE)
        evidence = _log_odds(view, expected, colours)
        trimap = np.where(evidence > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        trimap[evidence > _UNSURE] = cv2.GC_FGD
        trimap[evidence < -_UNSURE] = cv2.GC_BGD
        return _Claim(_grabcut(view.lab, trimap, self.iterations, _MAX_PIXELS), evidence)

    def remember(self, view: _View, mask: BoolArray, tracked: _Tracked | None) -> _Tracked:
        """Take in what a finished frame shows; `tracked` None: everything known comes from this frame."""
        if tracked is None:
            colours = _histograms(view, mask)
            return _Tracked(mask, prompted=colours, recent=colours)
        if not mask.any():
            return replace(tracked, mask=mask)
        return replace(tracked, mask=mask, recent=_blend(tracked.recent, _histograms(view, mask), self.memory))

    def _cut_prompt(self, view: _View, trimap: UInt8Array, prompt: _PromptAt) -> BoolArray:
        _mark_points(trimap, prompt)
        return _grabcut(view.lab, trimap, self.prompt_iterations)

    def _carry(self, before: _View, view: _View, mask: BoolArray) -> BoolArray:
        """Move a mask from one frame to the next along the flow."""
        carried = np.zeros_like(mask)
        if not mask.any():
            return carried
        window = _window(mask)
        # From the new frame to the old one, so that every new pixel looks up where it came from.
        flow = _flow(view.grey[window], before.grey[window])
        inside = mask[window].astype(np.float32)
        height, width = inside.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        moved = cv2.remap(inside, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        carried[window] = moved > 0.5
        return carried


class _ClipRun:
    """One clip on its way through the segmenter: which objects are followed on which frames."""

    def __init__(
        self,
        segmenter: GrabCutSegmenter,
        frames: FrameSource,
        prompts: Sequence[Prompt],
        on_object_error: OnObjectError,
    ) -> None:
        self.segmenter = segmenter
        self.frames = frames
        self.grid = _Grid(frames.width, frames.height, segmenter.working_height)
        self.on_object_error = on_object_error
        self.prompts_on: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            self.prompts_on.setdefault(prompt.frame, []).append(prompt)
        ids = {prompt.object_id for prompt in prompts}
        self.first = {i: min(p.frame for p in prompts if p.object_id == i) for i in ids}
        self.last = {i: max(p.frame for p in prompts if p.object_id == i) for i in ids}
        if segmenter.propagate:
            self.last = dict.fromkeys(ids, int(frames.index[-1]))
        self.failed: set[int] = set()
        self.begun_late: dict[int, _Tracked] = {}
        """Objects as they were on their first prompt frame, where that is not the first frame."""
        self.taken: dict[int, UInt8Array] = {}
        """Per frame that the backward pass will see again: pixels given away on it, packed, at working size."""

    def forwards(self) -> Iterator[MaskBlock]:
        """Follow every object from its first prompt on."""
        needed = [i for i in self.frames.index if any(self.first[k] <= i <= self.last[k] for k in self.first)]
        latest_start = max(self.first.values(), default=0)
        tracked: dict[int, _Tracked] = {}
        before: _View | None = None
        for frame, view in self._views(np.asarray(needed, dtype=np.int64)):
            prompts = [prompt for prompt in self.prompts_on.get(frame, []) if prompt.object_id not in self.failed]
            prompted = {prompt.object_id for prompt in prompts}
            claims = self._claims(before, view, tracked)
            claims |= _prompt_claims(self.segmenter, self.grid, view, prompts, claims)
            masks = self._without_failures(_resolve_overlaps(claims, prompted), prompts)
            tracked = {
                i: self.segmenter.remember(view, mask, None if i in prompted else tracked[i])
                for i, mask in masks.items()
            }
            shown = {i: mask for i, mask in masks.items() if self.segmenter.propagate or i in prompted}
            if shown:
                yield self._block(frame, shown, claims)
            self.begun_late |= {i: tracked[i] for i in masks if self.first[i] == frame > self.frames.index[0]}
            if frame < latest_start:
                self.taken[frame] = _packed(masks.values(), self.grid)
            tracked = {i: state for i, state in tracked.items() if self.last[i] > frame}
            before = view

    def backwards(self) -> Iterator[MaskBlock]:
        """Follow the objects that began late from their first prompt to the first frame."""
        starts = {i: self.first[i] for i in self.begun_late if i not in self.failed}
        if not starts:
            return
        tracked: dict[int, _Tracked] = {}
        before: _View | None = None
        for frame, view in self._views(self.frames.index[self.frames.index <= max(starts.values())][::-1]):
            claims = self._claims(before, view, tracked)
            masks = _resolve_overlaps(claims, first=set())
            if frame in self.taken:
                taken = _unpacked(self.taken.pop(frame), self.grid)
                masks = {i: mask & ~taken for i, mask in masks.items()}
            if masks:
                yield self._block(frame, masks, claims)
            tracked = {i: self.segmenter.remember(view, mask, tracked[i]) for i, mask in masks.items()}
            tracked |= {i: self.begun_late[i] for i, start in starts.items() if start == frame}
            before = view

    def _views(self, index: Int64Array) -> Iterator[tuple[int, _View]]:
        for block in self.frames.blocks(index):
            for frame, rgb in zip(block.index, block.rgb):
                yield int(frame), self.grid.view(rgb)

    def _claims(self, before: _View | None, view: _View, tracked: Mapping[int, _Tracked]) -> dict[int, _Claim]:
        if before is None:
            return {}
        return {i: self.segmenter.claim_carried(before, view, state) for i, state in tracked.items()}

    def _without_failures(self, masks: Mapping[int, BoolArray], prompts: Sequence[Prompt]) -> dict[int, BoolArray]:
        """Report the objects whose prompts led to nothing, and give back the others.

        Background points on a later frame may leave nothing of an object: then the user says that it is gone.
        """
        failed = {
            prompt.object_id: prompt
            for prompt in prompts
            if not masks[prompt.object_id].any()
            and (prompt.frame == self.first[prompt.object_id] or _is_positive(prompt))
        }
        for i, prompt in failed.items():
            self.failed.add(i)
            self.on_object_error(i, _no_mask(prompt, self.frames))
        return {i: mask for i, mask in masks.items() if i not in failed}

    def _block(self, frame: int, masks: Mapping[int, BoolArray], claims: Mapping[int, _Claim]) -> MaskBlock:
        return _as_block(frame, self.grid, masks, claims, self.prompts_on.get(frame, []))


class _GrabCutFrame:
    """One frame, asked about prompt by prompt."""

    def __init__(self, segmenter: GrabCutSegmenter, rgb: UInt8Array) -> None:
        height, width = rgb.shape[:2]
        self._segmenter = segmenter
        self._grid = _Grid(width, height, segmenter.working_height)
        self._view = self._grid.view(rgb)

    def masks(self, prompts: Sequence[Prompt]) -> MaskBlock:
        try:
            claims = _prompt_claims(self._segmenter, self._grid, self._view, prompts, carried={})
            masks = _resolve_overlaps(claims, first=set(claims))
            return _as_block(prompts[0].frame, self._grid, masks, claims, prompts)
        except cv2.error as exc:
            raise _as_aot_error(exc, self._grid.width, self._grid.height) from exc


def _prompt_claims(
    segmenter: GrabCutSegmenter, grid: _Grid, view: _View, prompts: Sequence[Prompt], carried: Mapping[int, _Claim]
) -> dict[int, _Claim]:
    """What the objects prompted on a frame claim of it; `carried` says where they were expected."""
    claims = {}
    for prompt in prompts:
        others = [other for other in prompts if other.object_id != prompt.object_id]
        expected = carried.get(prompt.object_id)
        claims[prompt.object_id] = segmenter.claim_prompt(
            view, grid.place(prompt, others), expected.mask if expected else None
        )
    return claims


def _as_block(
    frame: int,
    grid: _Grid,
    masks: Mapping[int, BoolArray],
    claims: Mapping[int, _Claim],
    prompts: Sequence[Prompt],
) -> MaskBlock:
    """One frame's masks at source size; masks that were given come out as they were given."""
    given = {prompt.object_id: prompt.mask for prompt in prompts if isinstance(prompt.mask, np.ndarray)}
    taken = np.zeros((grid.height, grid.width), np.bool_)
    full: dict[int, BoolArray] = {}
    for i, mask in sorted(given.items(), key=lambda item: np.count_nonzero(item[1])):
        full[i] = mask & ~taken
        taken |= mask
    full = {i: full[i] if i in full else grid.enlarge(mask) & ~taken for i, mask in masks.items()}
    return MaskBlock(
        index=np.array([frame], np.int64),
        object_id=np.array(list(masks), np.int32),
        masks=np.stack(list(full.values()))[np.newaxis],
        score=np.array([[_score(mask, claims[i].evidence) for i, mask in masks.items()]], np.float32),
    )


class _Grid:
    """Between source px and working px."""

    def __init__(self, width: int, height: int, working_height: int) -> None:
        scale = min(1.0, working_height / height)
        self.width, self.height = width, height
        self.working_size = max(1, round(width * scale)), max(1, round(height * scale))
        self.scale = np.array(self.working_size) / (width, height)

    def view(self, rgb: UInt8Array) -> _View:
        small = _resized(rgb, self.working_size)
        return _View(
            lab=_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2LAB)), grey=_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        )

    def place(self, prompt: Prompt, others: Sequence[Prompt]) -> _PromptAt:
        """A prompt in working px; object points of the other objects say what is background to it."""
        labelled = list(zip(prompt.points, prompt.labels))
        labelled += [(p, 0) for other in others for p, label in zip(other.points, other.labels) if label]
        points = [(self._pixel(point), bool(label)) for point, label in labelled]
        mask = None
        if isinstance(prompt.mask, np.ndarray):
            share = _resized(prompt.mask.astype(np.uint8) * 255, self.working_size)
            # What is too small for the grid must not get lost.
            mask = share > 127 if (share > 127).any() else share > 0
        box = None
        if prompt.box is not None:
            (x0, y0), (x1, y1) = self._pixel(prompt.box[:2]), self._pixel(prompt.box[2:])
            box = (x0, y0, x1 + 1, y1 + 1)
        return _PromptAt(points, box, mask)

    def enlarge(self, mask: BoolArray) -> BoolArray:
        """A mask at source size. Linear, so that masks that share no pixel here share none there.

        Two such masks add up to 255 at most, 257 after rounding: they cannot both exceed 128.
        """
        source = cv2.resize(mask.astype(np.uint8) * 255, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(source > 128, np.bool_)

    def _pixel(self, xy: Sequence[float]) -> tuple[int, int]:
        # Half a pixel: centres lie at integers on both grids.
        x, y = np.clip(np.rint((np.asarray(xy) + 0.5) * self.scale - 0.5), 0, np.array(self.working_size) - 1)
        return int(x), int(y)


def _window(mask: BoolArray, margin: float = _MARGIN) -> _Window:
    """The mask's bounding box with room around it; everything where the mask is empty."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    room = max(_MIN_MARGIN, round(margin * math.sqrt(np.ptp(rows) * np.ptp(columns))))
    return _span(rows[0] - room, rows[-1] + 1 + room, len(mask)), _span(
        columns[0] - room, columns[-1] + 1 + room, mask.shape[1]
    )


def _flow(start: UInt8Array, end: UInt8Array) -> Float32Array:
    """(h, w, 2) where each pixel of `start` lies in `end`, relative to itself, in px."""
    # A new one each time: a used one keeps what it chose for a picture of another size (flows differ by up to 7 px).
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    height, width = start.shape
    flow = dis.calc(_flow_picture(start), _flow_picture(end), None)
    return np.asarray(flow[:height, :width], np.float32)


def _flow_picture(grey: UInt8Array) -> UInt8Array:
    """A picture large enough for DIS flow, which on less than 12 px does not fail but crashes."""
    below, right = (max(0, _MIN_FLOW_SIZE - size) for size in grey.shape)
    return _uint8(cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE))


def _span(start: float, stop: float, size: int) -> slice:
    return slice(max(0, int(start)), min(size, int(stop)))


def _histograms(view: _View, mask: BoolArray) -> _Histograms:
    """Colour frequencies inside the mask and around it."""
    window = _window(mask)
    bins, inside = _bins(view.lab[window]), mask[window]
    return _histogram(bins[inside]), _histogram(bins[~inside])


def _bins(lab: UInt8Array) -> Int32Array:
    """(h, w) number of each pixel's cell in the colour cube."""
    cells = (lab >> (8 - _BITS)).astype(np.int32)
    return (cells[..., 0] << 2 * _BITS) | (cells[..., 1] << _BITS) | cells[..., 2]


def _histogram(bins: Int32Array) -> Float32Array:
    """Frequencies of the colour cube's cells, smoothed along each of its three axes."""
    cube = np.bincount(bins.ravel(), minlength=_LEVELS**3).reshape((_LEVELS,) * 3).astype(np.float32)
    for _ in range(3):
        padded = np.pad(cube, ((1, 1), (0, 0), (0, 0)), mode="edge")
        cube = np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, -1)
    return cube.ravel() / max(1.0, float(cube.sum()))


def _blend(old: _Histograms, new: _Histograms, share: float) -> _Histograms:
    return old[0] + share * (new[0] - old[0]), old[1] + share * (new[1] - old[1])


def _log_odds(view: _View, expected: BoolArray, colours: _Histograms) -> Float32Array:
    """(h, w) log odds of object against background: how deep inside the expected mask, and of whose colour."""
    odds = np.full(expected.shape, -_CERTAIN, np.float32)
    if not expected.any():
        return odds
    window = _window(expected)
    inside = expected[window].astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
    reach = max(1.0, _REACH * float(np.sqrt(np.count_nonzero(expected))))
    ratio = np.clip(np.log((colours[0] + _RARE) / (colours[1] + _RARE)), -_COLOUR_LIMIT, _COLOUR_LIMIT)
    colour = cv2.GaussianBlur(ratio[_bins(view.lab[window])], (0, 0), _COLOUR_BLUR)
    odds[window] = depth / reach + _COLOUR_WEIGHT * colour
    return odds


def _trimap_of_box(view: _View, box: tuple[int, int, int, int], unlike_ring: bool) -> UInt8Array:
    """Sure background outside the box; inside, likely object, or only what is unlike the ring around the box.

    GrabCut settles for the nearest local optimum: started from the whole box it keeps whatever background the box
    holds (mean IoU 0.73 instead of 0.78 on 12 DAVIS clips).
    """
    x0, y0, x1, y1 = box
    height, width = view.grey.shape
    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    trimap[y0:y1, x0:x1] = cv2.GC_PR_FGD
    ring = np.zeros((height, width), np.bool_)
    room_x, room_y = _RING * (x1 - x0), _RING * (y1 - y0)
    ring[_span(y0 - room_y, y1 + room_y, height), _span(x0 - room_x, x1 + room_x, width)] = True
    ring[y0:y1, x0:x1] = False
    around = view.lab[ring].astype(np.float32)
    if unlike_ring and len(around):
        sample = around[:: -(-len(around) // _RING_SAMPLES)]
        inside = view.lab[y0:y1, x0:x1].reshape(-1, 3).astype(np.float32)
        nearest = [match.distance for match in cv2.BFMatcher(cv2.NORM_L2).match(inside, sample)]
        alike = np.reshape(nearest, (y1 - y0, x1 - x0)) <= _SAME_COLOUR
        if np.count_nonzero(~alike) > _MIN_UNLIKE * alike.size:
            trimap[y0:y1, x0:x1][alike] = cv2.GC_PR_BGD
    return trimap


def _fills(mask: BoolArray, box: tuple[int, int, int, int]) -> bool:
    """Whether a mask reaches over most of its box, as people draw boxes."""
    x0, y0, x1, y1 = box
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return False
    return bool(np.ptp(rows) + 1 >= _MIN_EXTENT * (y1 - y0) and np.ptp(columns) + 1 >= _MIN_EXTENT * (x1 - x0))


def _trimap_of_correction(carried: BoolArray) -> UInt8Array:
    """The expected mask, all of it open to doubt within the object's window."""
    trimap = np.full(carried.shape, cv2.GC_BGD, np.uint8)
    trimap[_window(carried)] = cv2.GC_PR_BGD
    trimap[carried] = cv2.GC_PR_FGD
    return trimap


def _box_around(prompt: _PromptAt, view: _View) -> tuple[int, int, int, int]:
    """Where to look for an object of which only points are known."""
    height, width = view.grey.shape
    reach = max(1, round(_POINT_REACH * height))
    xy = np.array([point for point, is_object in prompt.points if is_object] or [point for point, _ in prompt.points])
    (x0, y0), (x1, y1) = np.maximum(xy.min(0) - reach, 0), xy.max(0) + reach + 1
    return int(x0), int(y0), int(min(x1, width)), int(min(y1, height))


def _mark_points(trimap: UInt8Array, prompt: _PromptAt) -> None:
    """Clicked discs are sure, whatever else the trimap says."""
    open_pixels = np.count_nonzero(trimap == cv2.GC_PR_FGD)
    radius = max(1, round(_DISC * float(np.sqrt(open_pixels))))
    for point, is_object in sorted(prompt.points, key=lambda item: item[1]):
        cv2.circle(trimap, point, radius, cv2.GC_FGD if is_object else cv2.GC_BGD, cv2.FILLED)
    for (x, y), is_object in prompt.points:
        trimap[y, x] = cv2.GC_FGD if is_object else cv2.GC_BGD


def _parts_at(mask: BoolArray, prompt: _PromptAt) -> BoolArray:
    """Only the parts of a mask that were clicked: without a box nothing else ties them to the object."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    clicked = [parts[y, x] for (x, y), is_object in prompt.points if is_object and mask[y, x]]
    return np.asarray(np.isin(parts, clicked), np.bool_)


def _grabcut(lab: UInt8Array, trimap: UInt8Array, iterations: int, most_pixels: int | None = None) -> BoolArray:
    """GrabCut within the window of what is not sure background, on `most_pixels` at most."""
    result: BoolArray = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    if not result.any():
        return result
    window = _window(trimap != cv2.GC_BGD)
    wanted = trimap[window]
    height, width = wanted.shape
    scale = min(1.0, math.sqrt((most_pixels or wanted.size) / wanted.size))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    labels = _uint8(cv2.resize(wanted, size, interpolation=cv2.INTER_NEAREST))
    num_likely = np.count_nonzero((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    if min(num_likely, labels.size - num_likely) < _GRABCUT_COLOURS:
        return result
    # GrabCut draws from OpenCV's global random state: seeded, its result does not depend on what ran before.
    cv2.setRNGSeed(0)
    models = np.zeros((1, _GRABCUT_MODEL_SIZE)), np.zeros((1, _GRABCUT_MODEL_SIZE))
    cv2.grabCut(_resized(lab[window].copy(), size), labels, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8) * 255
    found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    # What the trimap was sure of holds whatever the coarser grid made of it.
    result[window] = ((found > 127) & (wanted != cv2.GC_BGD)) | (wanted == cv2.GC_FGD)
    return result


def _resolve_overlaps(claims: Mapping[int, _Claim], first: set[int]) -> dict[int, BoolArray]:
    """Give every pixel to one object at most.

    Objects in `first` (prompted on this frame) come before carried ones, small ones before large: a box around the
    large one also holds the small one. Among carried objects the evidence decides.
    """
    taken: BoolArray | None = None
    masks: dict[int, BoolArray] = {}
    for i in sorted(first, key=lambda i: np.count_nonzero(claims[i].mask)):
        masks[i] = claims[i].mask if taken is None else claims[i].mask & ~taken
        taken = masks[i] if taken is None else taken | masks[i]
    carried = [i for i in claims if i not in first]
    if carried:
        evidence = np.stack([np.where(claims[i].mask, claims[i].evidence, -np.inf) for i in carried])
        best = evidence.argmax(0)
        for row, i in enumerate(carried):
            masks[i] = claims[i].mask & (best == row)
            if taken is not None:
                masks[i] &= ~taken
    return {i: masks[i] for i in sorted(masks)}


def _packed(masks: Iterable[BoolArray], grid: _Grid) -> UInt8Array:
    """The union of some masks, a bit a pixel."""
    union = np.zeros(grid.working_size[::-1], np.bool_)
    for mask in masks:
        union |= mask
    return np.packbits(union)


def _unpacked(bits: UInt8Array, grid: _Grid) -> BoolArray:
    width, height = grid.working_size
    return np.unpackbits(bits, count=width * height).reshape(height, width).astype(np.bool_)


def _score(mask: BoolArray, evidence: Float32Array) -> float:
    if not mask.any():
        return 0.0
    return float(np.mean(1 / (1 + np.exp(-evidence[mask]))))


def _is_positive(prompt: Prompt) -> bool:
    """Whether it says that the object is there; background points alone may erase it."""
    return prompt.box is not None or prompt.mask is not None or any(prompt.labels)


def _no_mask(prompt: Prompt, frames: FrameSource) -> SegmentationError:
    said = [] if prompt.box is None else [f"box {list(prompt.box)}"]
    if prompt.points:
        said += [f"points {[list(point) for point in prompt.points]}", f"labels {list(prompt.labels)}"]
    return SegmentationError(
        f"object {prompt.object_id}: its prompt on frame {prompt.frame} ({', '.join(said) or 'a mask'}) gave an empty "
        f"mask in the {frames.width}x{frames.height} px frame, expected at least one pixel; click a point inside the "
        f"object, draw the box around it, or raise segmenter.working_height if it is small"
    )


def _as_aot_error(error: cv2.error, width: int, height: int) -> AotError:
    if error.code == cv2.Error.StsNoMem:
        return OutOfMemory(f"out of memory in OpenCV: {error}; lower segmenter.working_height")
    return SegmentationError(
        f"OpenCV failed on a {width}x{height} px frame: {error}; try another segmenter.working_height, "
        f"and please report it"
    )


def _resized(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return _uint8(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _uint8(array: object) -> UInt8Array:
    return np.asarray(array, np.uint8)
