"""Masks for the prompts of one frame, as images to draw over the frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from aot.drawing.colours import object_colour
from aot.drawing.style import OverlayStyle
from aot.manifest.assign import entry_prompts
from aot.manifest.fit import check_prompts
from aot.manifest.schema import ClipEntry, ObjectEntry
from aot.prompt.frames import ClipFrames
from aot.segmentation.base import FrameSession, InteractiveSegmenter, mask_advice
from aot.types import BoolArray, Prompt

# Each session holds the features of one frame, about 10 MB with SAM 2.
_MAX_SESSIONS = 4


@dataclass(frozen=True)
class ShownMask:
    """The mask of one object on the shown frame."""

    object_id: int
    note: str = ""
    """Why there is no mask; empty if there is one."""
    score: float = 0.0
    area: int = 0
    """Area of the mask, px of the frame."""
    x: int = 0
    """Left edge of the PNG in the frame, px."""
    y: int = 0
    """Top edge of the PNG in the frame, px."""
    png: bytes = b""
    """RGBA image of the mask's bounding box in the object's colour, transparent outside the mask."""


class LiveMasks:
    """Computes masks with one model, one request at a time.

    Args:
        segmenter: the model; None: there are no masks.
        frames: source of the images.
        folder: the folder of the manifest; the paths of mask files are relative to it.
    """

    def __init__(self, segmenter: InteractiveSegmenter | None, frames: ClipFrames, folder: Path) -> None:
        self._segmenter = segmenter
        self._frames = frames
        self._folder = folder
        self._lock = Lock()
        self._sessions: OrderedDict[tuple[str, int], FrameSession] = OrderedDict()

    def masks(self, clip_id: str, frame: int, objects: Sequence[ObjectEntry]) -> list[ShownMask]:
        """The masks of the objects prompted on a frame, ordered by object id.

        Mistakes in a prompt are returned as the object's `note`. Without any object, the frame is only encoded, so that
        the response to the first click on it is fast.

        Raises:
            DecodeError: the frame cannot be read.
            SegmentationError, OutOfMemory: the segmenter failed.
        """
        if self._segmenter is None:
            return []
        info = self._frames.info(clip_id)
        # Built without checks across objects: the prompts of other objects may be incomplete.
        entry = ClipEntry.model_construct(objects=tuple(item for item in objects if item.frame == frame))
        fitting, errors = check_prompts(
            [prompt for prompt in entry_prompts(entry, self._folder) if prompt.is_visual],
            width=info.width,
            height=info.height,
            frames=range(info.first, info.last + 1),
            num_source_frames=info.num_source_frames,
        )
        shown = {object_id: ShownMask(object_id, note=str(error)) for object_id, error in errors.items()}
        positive = [prompt for prompt in fitting if _shows_object(prompt)]
        note = "only background points: in the run, they correct the mask propagated to this frame"
        shown |= {p.object_id: ShownMask(p.object_id, note=note) for p in fitting if not _shows_object(p)}
        with self._lock:
            session = self._session(clip_id, frame, self._segmenter)
            if positive:
                block = session.masks(positive)
                for object_id, mask, score in zip(block.object_id.tolist(), block.masks[0], block.score[0].tolist()):
                    shown[object_id] = _shown(object_id, mask, score)
                for prompt in positive:
                    if not shown[prompt.object_id].png:
                        note = f"no mask found: {mask_advice(self._segmenter, prompt, info.height)}"
                        shown[prompt.object_id] = ShownMask(prompt.object_id, note=note)
        return [shown[object_id] for object_id in sorted(shown)]

    def _session(self, clip_id: str, frame: int, segmenter: InteractiveSegmenter) -> FrameSession:
        session = self._sessions.get((clip_id, frame))
        if session is None:
            while len(self._sessions) >= _MAX_SESSIONS:
                self._sessions.popitem(last=False)
            session = segmenter.open_frame(self._frames.rgb(clip_id, frame))
            self._sessions[clip_id, frame] = session
        self._sessions.move_to_end((clip_id, frame))
        return session


def _shows_object(prompt: Prompt) -> bool:
    return prompt.box is not None or prompt.mask is not None or 1 in prompt.labels


def _shown(object_id: int, mask: BoolArray, score: float) -> ShownMask:
    """The mask as an image; without an image if it is empty."""
    inside = np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(inside)
    if not width:
        return ShownMask(object_id)
    part = inside[y : y + height, x : x + width]
    red, green, blue = object_colour(object_id)
    image = np.zeros((height, width, 4), np.uint8)
    image[part > 0] = blue, green, red, round(255 * OverlayStyle().tint)
    outline = part - cv2.erode(part, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    image[outline > 0] = blue, green, red, 255
    _, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return ShownMask(object_id, score=score, area=int(np.count_nonzero(inside)), x=x, y=y, png=bytes(png))
