"""All stages of one clip: contents of the result file, and which errors fail an object or the clip."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import av
import h5py
import numpy as np
import pytest
from PIL import Image

import aot
from aot import pipeline
from aot.checkpoints import Weights
from aot.decoding.base import FrameSource
from aot.decoding.decord import DecordDecoder
from aot.decoding.pyav import PyAVDecoder
from aot.drawing.clip import draw_clip, write_prompt_images
from aot.drawing.style import OverlayStyle
from aot.errors import AotError, DecodeError, OutOfMemory, PromptError, SegmentationError, TrackingError, WriteError
from aot.export.base import ExportedClip
from aot.export.tap_vid import TapVidExporter
from aot.flow.options import PointOptions
from aot.memory_plan import FULL_BUFFERS
from aot.paths import ClipPaths, RunPaths
from aot.pipeline import ClipSummary, Parts, ReadingAhead, Settings, process_clip
from aot.preparation import PreparedClip, decode_first_frames, prepare_clip
from aot.query_points.grid import GridSampler
from aot.report.clip import report_clip
from aot.retry import Attempt, Rung
from aot.runs.taken_up import summary_of
from aot.segmentation.base import OnObjectError
from aot.segmentation.none import NoSegmenter
from aot.stages import StageTimer
from aot.tracking.base import TrackPoints
from aot.types import Clip, ClipResult, MaskBlock, Prompt, QueryPoints, Tracks, Words
from aot.writing import hdf5
from aot.writing.disk import DiskFile
from tests.decoding.coded_video import numbers_in, write_coded_video
from tests.decoding.made_videos import TURNS, write_narrow, write_streams
from tests.fakes import BoxSegmenter, CentreSampler, SquareDetector, StillTracker
from tests.synthetic import moving_square, write_video

PARTS = Parts(PyAVDecoder(), BoxSegmenter(), CentreSampler(), StillTracker())
PROVENANCE = {"config_yaml": "", "config_hash": "", "versions": "{}"}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "square.mp4", moving_square(12))


def run(
    folder: Path,
    video: Path,
    *prompts: Prompt,
    parts: Parts = PARTS,
    frame_interval: int = 1,
    sample_fps: float | None = None,
    **clip: Any,
) -> tuple[ClipSummary, ClipResult]:
    paths = RunPaths(folder).clip("square")
    settings = Settings(frame_interval, frame_interval, PROVENANCE, sample_fps=sample_fps)
    summary = process_clip(Clip("square", video, prompts, **clip), parts, settings, paths)
    return summary, aot.load(paths.result)


BOX = Prompt(object_id=1, frame=0, box=(8, 20, 28, 40), name="square")


def test_masks_tracks_and_provenance_are_recorded(tmp_path: Path, video: Path) -> None:
    summary, result = run(tmp_path, video, BOX)
    assert result.index.tolist() == list(range(12))
    np.testing.assert_allclose(result.time, np.arange(12) / 10, atol=1e-6)
    assert result.masks is not None
    assert result.masks.sum(axis=(2, 3)).tolist() == [[400]] * 12
    assert result.query.tolist() == [[0, 17.5, 29.5]]
    assert result.in_mask.all()
    assert result.attributes["clip_id"] == "square"
    assert result.attributes["source_sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    assert (result.attributes["width"], result.attributes["height"]) == (96, 64)
    assert result.attributes["num_source_frames"] == 12
    assert json.loads(result.attributes["attempts"]) == [Attempt(Rung(1, 1, lean=False)).as_json()]
    assert set(json.loads(result.attributes["seconds"])) == {
        "hash", "open", "prompts", "predict", "wait_for_frames", "segment", "query_points", "track", "write",
    }  # fmt: skip
    assert result.attributes["peak_memory_bytes"] > 2**20
    assert (summary.num_points, summary.num_frames, summary.in_mask_share) == (1, 12, 1.0)


def test_decoder_is_recorded(tmp_path: Path, video: Path) -> None:
    summary, result = run(tmp_path / "pyav", video, BOX)
    assert (summary.decoder, summary.decoder_fallback) == ("pyav", "")
    assert (result.attributes["decoder"], result.attributes["decoder_version"]) == ("pyav", av.__version__)
    # Depending on the processor, decord takes the padding of rows for a fourth colour; rows of 64 px have none.
    unpadded = write_coded_video(tmp_path / "a.mp4", range(12), size=(64, 48))
    summary, result = run(tmp_path / "decord", unpadded, BOX, parts=replace(PARTS, decoder=DecordDecoder()))
    assert (summary.decoder, summary.decoder_fallback) == ("decord", "")
    assert (result.attributes["decoder"], result.attributes["decoder_fallback"]) == ("decord", "")


def test_reason_for_another_decoder_is_recorded(tmp_path: Path, video: Path) -> None:
    short = replace(PARTS, decoder=DecordDecoder(max_buffer_gb=1e-6))
    summary, result = run(tmp_path, video, BOX, parts=short)
    assert summary.decoder == "pyav"
    assert summary.decoder_fallback == result.attributes["decoder_fallback"] != ""


def test_devices_and_weights_of_the_parts_are_recorded(tmp_path: Path, video: Path) -> None:
    _, result = run(tmp_path, video, BOX)
    assert (result.attributes["device"], result.attributes["weights"]) == ("cpu", "[]")
    assert result.attributes["precision"] == "{}"
    weights = Weights("own.pth", "ab12", checkpoint=None, licence=None)

    class TrackerWithWeights(StillTracker):
        device_name = "cuda:0 NVIDIA H100"

        def __init__(self) -> None:
            self.weights = (weights,)

    _, result = run(tmp_path, video, BOX, parts=replace(PARTS, tracker=TrackerWithWeights()))
    assert result.attributes["device"] == "segmenter cpu, tracker cuda:0 NVIDIA H100"
    assert json.loads(result.attributes["weights"]) == [{"part": "tracker"} | asdict(weights)]


def test_interval_keeps_prompt_and_query_frames(tmp_path: Path, video: Path) -> None:
    late = Prompt(object_id=2, frame=7, box=(0, 0, 9, 9), query_points=((5, 3, 3), (7, 4, 4)))
    _, result = run(tmp_path, video, BOX, late, frame_interval=4)
    assert result.index.tolist() == [0, 4, 5, 7, 8]
    np.testing.assert_allclose(result.time, np.array([0, 4, 5, 7, 8]) / 10, atol=1e-6)
    assert result.query.tolist() == [[0, 17.5, 29.5], [5, 3, 3], [7, 4, 4]]
    assert result.track_object_id.tolist() == [1, 2, 2]
    assert result.attributes["frame_interval"] == 4


UNEVEN_MS = [0, 30, 70, 100, 130, 190, 240, 500, 530, 560, 600, 630]


def test_frames_are_chosen_by_their_times(tmp_path: Path) -> None:
    """Output times 0, 100, …, 600 ms: 240 is nearest to 300, and 500 to 400 and 500."""
    uneven = write_coded_video(tmp_path / "a.mkv", range(12), UNEVEN_MS)
    prompts = Prompt(1, 0, box=(8, 8, 20, 20)), Prompt(2, 4, box=(0, 0, 9, 9), query_points=((8, 3, 3), (4, 4, 4)))
    _, result = run(tmp_path / "1", uneven, prompts[0], sample_fps=10)
    assert result.index.tolist() == [0, 3, 5, 6, 7, 10]
    np.testing.assert_allclose(result.time, np.array([0, 100, 190, 240, 500, 600]) / 1000, atol=1e-9)
    assert numbers_in(np.stack(list(result.frames()))).tolist() == result.index.tolist()
    assert (result.attributes["sample_fps"], result.attributes["num_sampled_frames"]) == (10.0, 6)
    assert (result.attributes["frame_interval"], result.attributes["num_source_frames"]) == (1, 12)
    _, result = run(tmp_path / "2", uneven, *prompts, sample_fps=10)
    assert result.index.tolist() == [0, 3, 4, 5, 6, 7, 8, 10], "frames of prompts and queries are kept too"
    assert result.attributes["num_sampled_frames"] == 6
    _, result = run(tmp_path / "3", uneven, *prompts, sample_fps=10, frame_interval=2)
    assert result.index.tolist() == [0, 4, 5, 7, 8], "every second of the chosen frames"


def test_times_count_from_the_first_frame_of_the_time_range(tmp_path: Path, video: Path) -> None:
    prompt = replace(BOX, frame=3)
    _, result = run(tmp_path, video, prompt, start_seconds=0.25, end_seconds=0.95, sample_fps=5)
    assert result.index.tolist() == [3, 5, 7, 9]


def test_frames_of_a_folder_have_the_times_of_its_rate(tmp_path: Path) -> None:
    for number, rgb in enumerate(moving_square(12)):
        Image.fromarray(rgb).save(tmp_path / f"{number:02}.png")
    _, result = run(tmp_path / "out", tmp_path, BOX, fps=30.0, sample_fps=10)
    assert result.index.tolist() == [0, 3, 6, 9]
    _, result = run(tmp_path / "slow", tmp_path, BOX, fps=5.0, sample_fps=10)
    assert result.index.tolist() == list(range(12))


def test_progress_is_reported_per_stage(tmp_path: Path, video: Path) -> None:
    reports: list[tuple[str, float]] = []
    late = Prompt(object_id=2, frame=5, box=(0, 0, 9, 9))
    process_clip(
        Clip("square", video, (BOX, late)),
        PARTS,
        Settings(1, 1, PROVENANCE),
        RunPaths(tmp_path).clip("square"),
        lambda stage, fraction: reports.append((stage, fraction)),
    )
    fractions = [fraction for stage, fraction in reports if stage == "segment"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert reports[-1][0] == "track"


def test_drawings_show_the_result(tmp_path: Path, video: Path) -> None:
    clip = Clip("day/square", video, (BOX, Prompt(object_id=2, frame=5, points=((1, 1),), labels=(1,))))
    paths = RunPaths(tmp_path).clip(clip.clip_id)
    process_clip(clip, PARTS, Settings(4, 4, PROVENANCE), paths)
    draw_clip(clip, paths, OverlayStyle())
    with av.open(paths.overlay) as container:
        assert len(list(container.decode(video=0))) == len(aot.load(paths.result).index) == 4  # 0, 4, 5, 8
    write_prompt_images(clip, paths)
    # Object 2 has failed: its prompt frame is written, but no mask of it.
    assert sorted(path.name for path in paths.pictures.iterdir()) == [
        "frame_000000.png", "frame_000000_object_1.png", "frame_000005.png", "frame_000005_object_1.png",
    ]  # fmt: skip
    with Image.open(paths.pictures / "frame_000000_object_1.png") as mask:
        assert np.count_nonzero(mask) == 400


@pytest.mark.parametrize(
    ("turns", "size", "pixel_aspect", "shown"),
    [(0, (64, 48), "4:3", (85, 48)), (1, (48, 64), "3:4", (36, 64))],
)
def test_overlay_and_report_are_not_squeezed(
    tmp_path: Path, turns: int, size: tuple[int, int], pixel_aspect: str, shown: tuple[int, int]
) -> None:
    """The source has 64x48 px that are wider than high, and is turned by 90 degrees or not."""
    source = write_narrow(tmp_path / "a.mp4", Fraction(4, 3), TURNS[turns] if turns else None)
    clip = Clip("square", source, (BOX,))
    paths = RunPaths(tmp_path).clip("square")
    process_clip(clip, PARTS, Settings(1, 1, PROVENANCE), paths)
    attributes = aot.load(paths.result).attributes
    assert (attributes["width"], attributes["height"], attributes["pixel_aspect_ratio"]) == (*size, pixel_aspect)
    draw_clip(clip, paths, OverlayStyle())
    with av.open(paths.overlay) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (
            *size,
            Fraction(pixel_aspect.replace(":", "/")),
        )
    report_clip(paths, {})
    with Image.open(paths.report.prompt_image(0)) as image:
        assert image.size == shown
    assert f'"pixel_aspect_ratio": "{pixel_aspect}", "stream": 0' in paths.report.data.read_text()
    if shutil.which("ffprobe"):
        entries = ["-show_entries", "stream=sample_aspect_ratio,display_aspect_ratio", "-of", "csv=p=0"]
        probed = subprocess.run(["ffprobe", "-v", "error", *entries, paths.overlay], capture_output=True, text=True)
        assert probed.stdout.strip() == f"{pixel_aspect},{'16:9' if turns == 0 else '9:16'}"


class TestSameFramesLater:
    """Overlay, report and exports read the frames from which a result was computed, not others of the same source."""

    @staticmethod
    def brightness(paths: ClipPaths, folder: Path) -> list[float]:
        """Mean of frame 0 in the overlay, the report and TAP-Vid's frames."""
        report_clip(paths, {})
        exported = TapVidExporter().export(ExportedClip("square", paths.result), folder)
        with av.open(paths.overlay) as container:
            overlay = next(container.decode(video=0)).to_ndarray(format="rgb24")
        jpeg = pickle.loads(exported.read_bytes())["square"]["video"][0]
        images = [np.asarray(Image.open(file)) for file in (paths.report.prompt_image(0), io.BytesIO(jpeg))]
        return [float(image[:10].mean()) for image in (overlay, *images)]

    def test_of_a_video_stream(self, tmp_path: Path) -> None:
        numbers = {0: [0] * 3, 1: [255] * 3}
        streams = [((64, 48), "yuv420p", numbers[stream]) for stream in numbers]
        for stream, is_bright in ((None, False), (0, False), (1, True)):
            folder = tmp_path / str(stream)
            folder.mkdir()
            clip = Clip("square", write_streams(folder / "a.mkv", streams), (BOX,), stream=stream)
            paths = RunPaths(folder).clip("square")
            process_clip(clip, PARTS, Settings(1, 1, PROVENANCE), paths)
            assert aot.load(paths.result).attributes["stream"] == (stream or 0)
            draw_clip(clip, paths, OverlayStyle(label=False))
            assert [value > 100 for value in self.brightness(paths, folder)] == [is_bright] * 3

    def test_of_a_folder_with_several_patterns(self, tmp_path: Path) -> None:
        for name, value in (("color", 250), ("depth", 5)):
            for frame in range(3):
                path = tmp_path / "frames" / f"{frame:05d}_{name}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(path)
        clip = Clip("square", tmp_path / "frames", (BOX,), pattern="*_color.png")
        paths = RunPaths(tmp_path).clip("square")
        process_clip(clip, PARTS, Settings(1, 1, PROVENANCE), paths)
        assert "stream" not in aot.load(paths.result).attributes
        draw_clip(clip, paths, OverlayStyle(label=False))
        assert min(self.brightness(paths, tmp_path)) > 200


def test_errors_of_drawing_a_missing_video_name_the_stage(tmp_path: Path, video: Path) -> None:
    clip = Clip("square", video, (BOX,))
    paths = RunPaths(tmp_path).clip("square")
    process_clip(clip, PARTS, Settings(1, 1, PROVENANCE), paths)
    for draw, stage in ((partial(draw_clip, style=OverlayStyle()), "overlay"), (write_prompt_images, "pictures")):
        with pytest.raises(DecodeError, match=r"gone\.mp4") as caught:
            draw(replace(clip, source=tmp_path / "gone.mp4"), paths)
        assert (caught.value.clip_id, caught.value.stage) == ("square", stage)


def test_time_range_keeps_source_numbers(tmp_path: Path, video: Path) -> None:
    _, result = run(tmp_path, video, replace(BOX, frame=3), start_seconds=0.25, end_seconds=0.8, frame_interval=2)
    assert result.index.tolist() == [3, 4, 6]


def test_a_correction_outside_the_time_range_is_noted_in_result_and_report(tmp_path: Path, video: Path) -> None:
    summary, result = run(tmp_path, video, BOX, replace(BOX, frame=9), end_seconds=0.5)
    note = "object 1: its correction on frame 9 is outside the time range (frames 0 to 4) and was left out"
    assert summary.notes == (note,)
    assert summary.object_errors == {}
    assert json.loads(result.attributes["notes"]) == [note]
    assert result.index.tolist() == list(range(5))
    report_clip(RunPaths(tmp_path).clip("square"), {})
    assert json.dumps(note) in RunPaths(tmp_path).clip("square").report.data.read_text()


def test_a_mask_of_the_whole_frame_is_noted(tmp_path: Path, video: Path) -> None:
    whole = Prompt(object_id=1, frame=0, mask=np.ones((64, 96), dtype=np.bool_))
    parts = replace(PARTS, segmenter=NoSegmenter())
    summary, result = run(tmp_path, video, whole, parts=parts)
    assert summary.notes[0].startswith("object 1: its mask covers 100.0% of frame 0; check that it marks the object")
    assert json.loads(result.attributes["notes"]) == list(summary.notes)


class _EmptyMasks(BoxSegmenter):
    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        for block in super().segment(frames, prompts, on_object_error=on_object_error):
            yield replace(block, masks=np.zeros_like(block.masks))


class _AdvisingEmptyMasks(_EmptyMasks):
    def mask_advice(self, prompt: Prompt, height: int) -> str:
        return f"try another box than {prompt.box} in {height} px"


def test_an_empty_mask_is_reported_with_the_advice_of_the_segmenter(tmp_path: Path, video: Path) -> None:
    for segmenter, advice in (
        (_EmptyMasks(), "click a point inside the object, or use another segmenter, or give query_points"),
        (
            _AdvisingEmptyMasks(),
            r"try another box than \(8, 20, 28, 40\) in 64 px, or give query_points in the manifest",
        ),
    ):
        with pytest.raises(SegmentationError, match=f"object 1: its prompt on frame 0 gave an empty mask; {advice}"):
            run(tmp_path, video, BOX, parts=replace(PARTS, segmenter=segmenter))
    queried = replace(BOX, query_points=((0, 10, 10),))
    summary, _ = run(tmp_path, video, queried, parts=replace(PARTS, segmenter=_EmptyMasks()))
    assert summary.notes == (
        "object 1: its prompt on frame 0 gave an empty mask; click a point inside the object, or use another "
        "segmenter; its query points are tracked",
    )


def test_a_mask_between_the_points_of_the_grid_is_reported_with_the_advice_of_the_sampler(
    tmp_path: Path, video: Path
) -> None:
    with pytest.raises(
        SegmentationError, match=r"of 400 px on frame 0; use query_points=adaptive or a grid finer than"
    ):
        run(tmp_path, video, BOX, parts=replace(PARTS, query_sampler=GridSampler(2)))
    with pytest.raises(SegmentationError, match=r"of 1 px on frame 0; give query_points in the manifest"):
        run(tmp_path, video, replace(BOX, box=(0, 0, 1, 1)))


def test_prompt_frames_only(tmp_path: Path, video: Path) -> None:
    parts = replace(PARTS, segmenter=BoxSegmenter(propagate=False))
    summary, _ = run(tmp_path, video, BOX, parts=parts)
    assert np.isnan(summary.in_mask_share), "no other frame has a mask to compare with"
    assert summary.checks[1]["in_mask"] is None
    _, result = run(tmp_path, video, BOX, replace(BOX, object_id=2, frame=5), parts=parts)
    assert result.mask_row.tolist() == [0, 5]
    assert result.in_mask[0].all()
    assert not result.in_mask[1].any()


def test_query_points_do_not_require_masks(tmp_path: Path, video: Path) -> None:
    summary, result = run(tmp_path, video, Prompt(object_id=4, frame=0, query_points=((2, 10.5, 30),)))
    assert result.masks is not None
    assert result.masks.shape == (0, 1, 64, 96)
    assert result.query.tolist() == [[2, 10.5, 30]]
    assert np.isnan(summary.in_mask_share)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Prompt(object_id=2, frame=99, box=(0, 0, 9, 9)), "frame 99 is beyond the end"),
        (Prompt(object_id=2, frame=0, points=((1, 1),), labels=(1,)), "no box"),
        (Prompt(object_id=2, frame=0, box=(0, 0, 1, 1)), "no query point inside its mask of 1 px"),
    ],
)
def test_one_failed_object_does_not_affect_the_other(tmp_path: Path, video: Path, bad: Prompt, message: str) -> None:
    summary, result = run(tmp_path, video, BOX, bad)
    assert list(summary.object_errors) == [2]
    assert message in result.object_error[1]
    assert result.object_error[0] == ""
    assert set(result.track_object_id) == {1}


@pytest.mark.parametrize(
    ("prompt", "kind", "stage"),
    [
        (Prompt(object_id=2, frame=99, box=(0, 0, 9, 9)), PromptError, "prompts"),
        (Prompt(object_id=2, frame=0, points=((1, 1),), labels=(1,)), SegmentationError, "query_points"),
    ],
)
def test_clip_fails_if_all_objects_fail(
    tmp_path: Path, video: Path, prompt: Prompt, kind: type[AotError], stage: str
) -> None:
    with pytest.raises(kind, match="object 2") as caught:
        run(tmp_path, video, prompt)
    assert (caught.value.clip_id, caught.value.stage) == ("square", stage)
    assert list((tmp_path).rglob("*.h5")) == []


def test_source_that_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"broken\.mp4") as caught:
        run(tmp_path, tmp_path / "broken.mp4", BOX)
    assert caught.value.stage == "open"


def test_missing_source_is_a_decode_error(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"gone\.mp4 cannot be read: no such file or folder") as caught:
        run(tmp_path, tmp_path / "gone.mp4", BOX)
    assert (caught.value.clip_id, caught.value.stage) == ("square", "hash")


class _OutOfMemorySegmenter(BoxSegmenter):
    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        yield from super().segment(frames, prompts, on_object_error=on_object_error)
        raise MemoryError


def test_memory_errors_become_out_of_memory_and_leave_no_file(tmp_path: Path, video: Path) -> None:
    with pytest.raises(OutOfMemory, match="larger frame_interval") as caught:
        run(tmp_path, video, BOX, parts=replace(PARTS, segmenter=_OutOfMemorySegmenter()), frame_interval=2)
    assert (caught.value.stage, caught.value.frame_interval) == ("segment", 2)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_masks_are_read_back_only_beyond_the_budget(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they come from does not change the result."""
    prompts = (BOX, replace(BOX, object_id=2, box=(30, 5, 60, 50)))
    num_read: list[int] = []
    read = h5py.Dataset.__getitem__

    def counted(dataset: h5py.Dataset, *arguments: Any) -> Any:
        num_read[-1] += dataset.name == "/masks/data"
        return read(dataset, *arguments)

    results = []
    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    # The compact masks of both objects on 5 frames fit into the second budget.
    for budget in (2**20, 5 * (2 * 1024 + 20 * 3 + 45 * 4), 0):
        monkeypatch.setattr(pipeline, "FULL_BUFFERS", replace(FULL_BUFFERS, mask_bytes=budget))
        num_read.append(0)
        results.append(run(tmp_path / str(budget), video, *prompts)[1])
        num_read[-1] -= 1  # of the test
    in_queries, in_comparison = 2 * 2, 12 * 2  # the masks of both objects are looked up for each object's points
    # For the tracks and again for the coverage, which counts valid points only.
    assert num_read == [0, 2 * (12 - 5) * 2, in_queries + 2 * in_comparison]
    first, *others = results
    for other in others:
        assert np.array_equal(first.in_mask, other.in_mask)
        assert first.attributes["checks"] == other.attributes["checks"]
        assert np.array_equal(np.asarray(first.masks), np.asarray(other.masks))


class _ReadingTracker(StillTracker):
    """Reads all frames forwards and backwards, as trackers do, and keeps a checksum."""

    def __init__(self) -> None:
        self.checksums: list[int] = []
        self.num_decoded: list[int] = []

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        for index in (None, frames.index[::-1]):
            self.checksums += [zlib.crc32(rgb.tobytes()) for block in frames.blocks(index) for rgb in block.rgb]
        self.num_decoded.append(frames.num_decoded)
        return super().track(frames, queries, lean=lean)


def test_frames_are_decoded_once_where_they_fit(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.decoding.base.BLOCK_BYTES", 2 * 96 * 64 * 3)
    tracker = _ReadingTracker()
    parts = replace(PARTS, tracker=tracker)
    for number, num_kept in enumerate((12, 6, 0)):
        monkeypatch.setattr(pipeline, "FULL_BUFFERS", replace(FULL_BUFFERS, frame_bytes=num_kept * 96 * 64 * 3))
        run(tmp_path / str(number), video, BOX, parts=parts, frame_interval=1)
    assert tracker.num_decoded == [12, 12 + 2 * 6, 12 + 2 * 12]
    forwards, backwards = tracker.checksums[:12], tracker.checksums[12:24]
    assert len(set(forwards)) == 12
    assert backwards == forwards[::-1]
    assert tracker.checksums == (forwards + backwards) * 3


NEEDED = 17 * 12 + 12 * 96 * 64
"""By the tracker for 12 frames and one point, and for 12 masks that wait to be written."""


def test_memory_of_masks_that_wait_to_be_written_is_predicted(tmp_path: Path, video: Path) -> None:
    clip, paths = Clip("square", video, (BOX,)), RunPaths(tmp_path).clip("square")
    with pytest.raises(OutOfMemory, match=r"not tried: tracking 1 points through 12 frames of 96x64 px") as caught:
        process_clip(clip, PARTS, Settings(1, 1, PROVENANCE, available_bytes=lambda: NEEDED - 1), paths)
    assert caught.value.stage == "predict"
    process_clip(clip, PARTS, Settings(1, 1, PROVENANCE, available_bytes=lambda: NEEDED), paths)


@pytest.mark.parametrize(
    ("lean", "spare", "num_decoded"),
    [(False, 4 * 12 * 96 * 64 * 3, 12), (False, 4 * 12 * 96 * 64 * 3 - 4, 36), (True, 2**30, 36)],
)
def test_frames_are_kept_in_a_quarter_of_the_memory_that_remains(
    tmp_path: Path, video: Path, lean: bool, spare: int, num_decoded: int
) -> None:
    tracker = _ReadingTracker()
    process_clip(
        Clip("square", video, (BOX,)),
        replace(PARTS, tracker=tracker),
        Settings(1, 1, PROVENANCE, lean=lean, available_bytes=lambda: NEEDED + spare),
        RunPaths(tmp_path).clip("square"),
    )
    assert tracker.num_decoded == [num_decoded]


def as_recorded(summary: ClipSummary) -> dict[str, Any]:
    """A summary as a ledger has it, without the times, which the file has rounded, and the peak of the memory."""
    recorded: dict[str, Any] = json.loads(json.dumps(asdict(summary)))
    return recorded | {"seconds": sorted(summary.seconds), "peak_memory_bytes": 0}


def test_clip_that_was_read_ahead_has_the_same_result(tmp_path: Path, video: Path) -> None:
    clip = Clip("square", video, (BOX,))
    started: list[int] = []

    def take() -> PreparedClip:
        prepared = prepare_clip(clip, PARTS.decoder, 1, StageTimer())
        decode_first_frames(prepared)
        return prepared

    results = []
    for number, ahead in enumerate((ReadingAhead(take, started.append), ReadingAhead(lambda: None, started.append))):
        paths = RunPaths(tmp_path / str(number)).clip("square")
        tracker = _ReadingTracker()
        settings = Settings(1, 1, PROVENANCE, available_bytes=lambda: NEEDED + 4000)
        summary = process_clip(clip, replace(PARTS, tracker=tracker), settings, paths, ahead=ahead)
        is_read_now = summary.seconds["hash"] > 0 and summary.seconds["open"] > 0
        assert is_read_now == bool(number)
        assert summary.seconds["wait_for_frames"] > 0
        assert {"hash", "open", "prompts"} <= set(summary.seconds)
        results.append((aot.load(paths.result), tracker.checksums))
        assert as_recorded(summary_of(results[-1][0])) == as_recorded(summary)
    assert started == [1000, 1000], "a quarter of the memory that is left"
    (first, first_frames), (second, second_frames) = results
    assert first_frames == second_frames
    assert np.array_equal(first.tracks.xy, second.tracks.xy)
    assert np.array_equal(np.asarray(first.masks), np.asarray(second.masks))
    left_out = {"seconds", "created", "peak_memory_bytes"}
    assert {key: value for key, value in first.attributes.items() if key not in left_out} == {
        key: value for key, value in second.attributes.items() if key not in left_out
    }


class _FailingWrites(FileIO):
    """A disk that fails as soon as masks are written."""

    def write(self, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_of_the_writing_thread_is_the_clip_s(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "_raise_failed_write", _only_in_the_writing_thread(hdf5._raise_failed_write))
    monkeypatch.setattr(hdf5, "DiskFile", type("FileOnFullDisk", (DiskFile, _FailingWrites), {}))
    threads = threading.active_count()
    with pytest.raises(WriteError, match=r"square\.h5 could not be written: the disk is full") as caught:
        run(tmp_path, video, BOX)
    assert (caught.value.clip_id, caught.value.stage) == ("square", "write")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert threading.active_count() == threads


def _only_in_the_writing_thread(function: Callable[..., None]) -> Callable[..., None]:
    def check(*arguments: Any) -> None:
        if threading.current_thread().name == "write":
            function(*arguments)

    return check


class _InterruptedTracker(StillTracker):
    def track(self, *arguments: Any, **options: Any) -> Tracks:
        raise KeyboardInterrupt


def test_an_interrupt_leaves_neither_a_file_nor_a_thread(tmp_path: Path, video: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, video, BOX, parts=replace(PARTS, tracker=_InterruptedTracker()))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert threading.active_count() == threads


SQUARE = Prompt(object_id=2, frame=0, name="square", words=Words("square", (0,)))


def with_detector(**options: Any) -> Parts:
    return replace(PARTS, detector=SquareDetector(**options))


def test_objects_are_found_by_words(tmp_path: Path, video: Path) -> None:
    summary, result = run(tmp_path, video, BOX, SQUARE, parts=with_detector())
    assert not summary.object_errors
    assert result.object_id.tolist() == [1, 2]
    assert result.masks is not None
    assert result.masks.sum(axis=(2, 3)).tolist() == [[400, 400]] * 12
    found = {"id": 2, "name": "square", "frame": 0, "box": [8, 20, 28, 40]}
    assert result.object_prompts[1] == [found | {"text": "square", "score": 0.9, "model": "squares"}]
    (search,) = result.provenance["words"]
    assert search["found"] == [{"id": 2, "frame": 0, "box": [8, 20, 28, 40], "score": 0.9}]
    assert search["looked_at"] == [{"frame": 0, "num_found": 1, "best_score": 0.9}]
    assert result.provenance["prompts"][1] == {"id": 2, "name": "square", "frame": 0, "text": "square"}
    assert [(each["part"], each["checkpoint"]) for each in result.provenance["weights"]] == [("detector", "a/b")]
    assert "detect" in result.provenance["seconds"]
    assert "words" not in run(tmp_path, video, BOX, parts=with_detector())[1].attributes


def test_only_the_frame_on_which_an_object_was_found_is_kept(tmp_path: Path, video: Path) -> None:
    late = replace(SQUARE, frame=3, words=Words("square", (3, 5, 9)))
    _, result = run(tmp_path, video, late, parts=with_detector(first_frame=4), frame_interval=4)
    assert result.index.tolist() == [0, 4, 5, 8]
    assert result.object_prompts[0][0]["box"] == [18, 20, 38, 40]
    assert result.query[:, 0].tolist() == [5]


def test_masks_of_a_detector_are_prompts(tmp_path: Path, video: Path) -> None:
    _, result = run(tmp_path, video, SQUARE, parts=replace(with_detector(masks=True), segmenter=NoSegmenter()))
    assert result.masks is not None
    assert result.masks[0, 0, 20:40, 8:28].all()
    assert result.masks.sum() == 400
    assert set(result.object_prompts[0][0]["mask"]) == {"size", "counts"}
    assert result.provenance["words"][0]["found"][0]["box"] == [8, 20, 28, 40]


def test_an_object_that_is_not_found_fails_and_the_others_continue(tmp_path: Path, video: Path) -> None:
    hat = replace(SQUARE, object_id=7, words=Words("hat", (0, 2)))
    summary, result = run(tmp_path, video, BOX, hat, SQUARE, parts=with_detector())
    assert list(summary.object_errors) == [7]
    assert summary.object_errors[7].startswith(
        'object 7: "hat" not found on frames 0, 2: the best score is 0.100, expected at least 0.3;'
    )
    assert result.object_id.tolist() == [1, 2, 7]
    assert result.object_error[2] == summary.object_errors[7]
    assert result.masks is not None
    assert not result.masks[:, 2].any()


def test_a_clip_fails_in_the_stage_detect_if_nothing_is_found(tmp_path: Path, video: Path) -> None:
    with pytest.raises(PromptError, match=r"the best score is 0\.100") as caught:
        run(tmp_path, video, replace(SQUARE, words=Words("hat", (0,), count=None)), parts=with_detector())
    assert caught.value.stage == "detect"


def test_images_of_prompt_frames_and_the_report_show_what_was_found(tmp_path: Path, video: Path) -> None:
    late = replace(SQUARE, frame=3, words=Words("square", (3, 5)))
    run(tmp_path, video, late, parts=with_detector(first_frame=4))
    paths = RunPaths(tmp_path).clip("square")
    write_prompt_images(Clip("square", video, (late,)), paths)
    assert [path.name for path in paths.pictures.glob("*5*.png")]
    assert not list(paths.pictures.glob("*3*.png"))
    report_clip(paths, {})
    text = paths.report.data.read_text()
    assert '"text": "square", "score": 0.9, "model": "squares"' in text


def test_words_are_found_in_a_clip_that_was_read_ahead(tmp_path: Path, video: Path) -> None:
    late = Clip("square", video, (replace(SQUARE, frame=3, words=Words("square", (3, 5))),))
    prepared = prepare_clip(late, PyAVDecoder(), 4, StageTimer())
    assert prepared.frames.index.tolist() == [0, 3, 4, 5, 8]
    decode_first_frames(prepared)
    paths = RunPaths(tmp_path).clip("square")
    ahead = ReadingAhead(take=lambda: prepared, start=lambda num_bytes: None)
    process_clip(late, with_detector(first_frame=4), Settings(4, 4, PROVENANCE), paths, ahead=ahead)
    assert aot.load(paths.result).index.tolist() == [0, 4, 5, 8]


def test_words_beside_frames_per_second(tmp_path: Path, video: Path) -> None:
    late = Clip("square", video, (replace(SQUARE, frame=3, words=Words("square", (3, 5))),))
    paths = RunPaths(tmp_path).clip("square")
    process_clip(late, with_detector(first_frame=4), Settings(1, 1, PROVENANCE, sample_fps=2.5), paths)
    assert aot.load(paths.result).index.tolist() == [0, 4, 5, 8]


class _FeatureTracker(StillTracker):
    """Notes when a clip is opened, tracked and closed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @contextmanager
    def on_clip(self, frames: FrameSource, *, num_points: int, lean: bool = False) -> Iterator[TrackPoints]:
        self.calls.append(f"open for {num_points}")
        yield lambda points: self.tracked(frames, points, lean)
        self.calls.append("close")

    def tracked(self, frames: FrameSource, points: QueryPoints, lean: bool) -> Tracks:
        self.calls.append(f"track {len(points)}")
        tracks = super().track(frames, points, lean=lean)
        tracks.visible[len(frames.index) // 2 :] = False  # the second half of the clip is not covered
        return tracks


def test_a_clip_is_opened_once_for_all_groups_of_points(tmp_path: Path, video: Path) -> None:
    tracker = _FeatureTracker()
    options = PointOptions(reseed=True, reseed_rounds=1)
    settings = Settings(1, 1, PROVENANCE, return_check=True, points=options)
    summary = process_clip(
        Clip("square", video, (BOX,)), replace(PARTS, tracker=tracker), settings, RunPaths(tmp_path).clip("square")
    )
    num_added = summary.num_points - 1
    assert summary.checks[1]["added"] == pytest.approx(num_added / summary.num_points, abs=1e-4)
    assert 1 <= num_added <= 3
    assert tracker.calls == ["open for 4", "track 1", f"track {num_added}", f"track {summary.num_points}", "close"]


def test_an_error_while_a_clip_is_opened_has_the_stage_of_tracking(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = _FeatureTracker()
    monkeypatch.setattr(tracker, "on_clip", _fail_to_open)
    with pytest.raises(TrackingError) as caught:
        run(tmp_path, video, BOX, parts=replace(PARTS, tracker=tracker))
    assert caught.value.stage == "track"


def _fail_to_open(*_: Any, **options: Any) -> NoReturn:
    raise TrackingError("no weights")


@pytest.mark.parametrize("is_lean", [False, True])
def test_a_lean_attempt_releases_the_detector_before_the_other_models(
    tmp_path: Path, video: Path, is_lean: bool
) -> None:
    events: list[str] = []

    class Recording(SquareDetector):
        def release(self) -> None:
            events.append("released")

    class RecordingSegmenter(BoxSegmenter):
        def segment(self, *arguments: Any, **options: Any) -> Iterator[MaskBlock]:
            events.append("segmented")
            return super().segment(*arguments, **options)

    parts = replace(PARTS, detector=Recording(), segmenter=RecordingSegmenter())
    paths = RunPaths(tmp_path).clip("square")
    process_clip(Clip("square", video, (SQUARE,)), parts, Settings(1, 1, PROVENANCE, lean=is_lean), paths)
    assert events == (["released", "segmented"] if is_lean else ["segmented"])
