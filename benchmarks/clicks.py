"""Time from a click to its mask at 854x480: for the first click on a frame, which decodes and encodes the frame, and
for further clicks.

    python -m benchmarks.clicks                                       GrabCut
    python -m benchmarks.clicks sam2 checkpoint=FILE size=tiny        SAM 2; checkpoint=random creates random weights

Goals: 1 s with GrabCut on 2 cores, 150 ms with SAM 2 on a GPU. Random weights take as long as trained ones.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from aot.manifest.schema import ObjectEntry
from aot.prompt.frames import ClipFrames
from aot.prompt.masks import LiveMasks
from aot.segmentation.grabcut import GrabCutSegmenter
from aot.types import Clip
from tests.prompt.test_live_masks import large_object
from tests.synthetic import write_video

FRAMES = 12
PROMPTS: list[dict[str, Any]] = [
    {"points": [[427, 240]]},
    {"points": [[427, 240], [135, 95]], "labels": [1, 0]},
    {"box": [126, 88, 728, 392]},
    {"box": [126, 88, 728, 392], "points": [[427, 240], [135, 95]], "labels": [1, 0]},
]


def make_segmenter(arguments: list[str], folder: Path) -> Any:
    if arguments[:1] != ["sam2"]:
        return GrabCutSegmenter()
    from aot.segmentation.sam2 import Sam2Segmenter
    from tests.segmentation.sam2_models import save_random_weights

    options: dict[str, Any] = dict(argument.split("=", 1) for argument in arguments[1:])
    if options.get("checkpoint") == "random":
        options["checkpoint"] = save_random_weights(folder / "random.pt", options.get("size", "large"), 1024)
    return Sam2Segmenter(**{**options, "checkpoint": Path(options["checkpoint"])})


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = Clip("a", write_video(folder / "a.mp4", large_object(FRAMES)))
        with closing(ClipFrames({"a": clip})) as frames:
            masks = LiveMasks(make_segmenter(sys.argv[1:], folder), frames, folder)
            masks.masks("a", 0, [ObjectEntry.model_validate({"id": 1, "frame": 0, **PROMPTS[0]})])  # loads the model
            first, further = [], []
            for frame in range(1, FRAMES):
                for number, prompt in enumerate(PROMPTS):
                    entry = ObjectEntry.model_validate({"id": 1, "frame": frame, **prompt})
                    spent = milliseconds(lambda frame=frame, entry=entry: masks.masks("a", frame, [entry]))
                    (first if number == 0 else further).append(spent)
    for label, times in (("first click on a frame", first), ("further clicks", further)):
        print(f"{label}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
