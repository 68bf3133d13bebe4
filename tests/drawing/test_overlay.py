"""Overlays: drawing, style, the video file, and failures."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from aot.drawing.colours import OBJECT_COLOURS, object_colour
from aot.drawing.overlay import write_overlay
from aot.drawing.style import OverlayStyle
from aot.drawing.video_writer import VideoWriter
from aot.errors import DecodeError, OutOfMemory, WriteError
from aot.types import QueryPoints, Tracks
from tests.fakes import ArraySource

GREY = 120


def grey_clip(num_frames: int = 6, width: int = 64, height: int = 48, fps: float = 25.0) -> ArraySource:
    return ArraySource(np.full((num_frames, height, width, 3), GREY, np.uint8), fps)


def points(
    num_frames: int, *starts: tuple[float, float], step: float = 0.0, visible: bool = True
) -> tuple[Tracks, QueryPoints]:
    """Points that move right by `step` px per frame."""
    start = np.array(starts, dtype=np.float32).reshape(-1, 2)
    xy = start + np.arange(num_frames, dtype=np.float32)[:, None, None] * np.array([step, 0], np.float32)
    shape = xy.shape[:2]
    tracks = Tracks(
        xy=xy.astype(np.float32),
        visible=np.full(shape, visible),
        visibility=np.full(shape, float(visible), np.float32),
        confidence=np.ones(shape, np.float32),
    )
    queries = QueryPoints(
        txy=np.column_stack([np.zeros(len(start)), start]).astype(np.float32),
        object_id=np.ones(len(start), np.int32),
    )
    return tracks, queries


def no_masks(row: int) -> None:
    return None


def write(
    path: Path,
    clip: ArraySource,
    drawn: tuple[Tracks, QueryPoints],
    masks: Callable = no_masks,
    object_ids: tuple[int, ...] = (1, 2),
    **style: object,
) -> np.ndarray:
    """Write an overlay and decode it again: (T, H, W, 3) RGB."""
    chosen = OverlayStyle.model_validate(style)
    write_overlay(path, clip, masks=masks, tracks=drawn[0], queries=drawn[1], object_ids=object_ids, style=chosen)
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def times(path: Path) -> list[Fraction]:
    with av.open(path) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


class TestDrawing:
    def test_masked_pixels_are_tinted_in_the_colour_of_their_object(self, tmp_path: Path) -> None:
        masks = np.zeros((2, 48, 64), dtype=bool)
        masks[0, 8:24, 8:24] = True
        masks[1, 24:40, 40:56] = True
        video = write(tmp_path / "o.mp4", grey_clip(), points(6), lambda row: masks if row != 3 else None)
        for row in (0, 5):
            for mask, colour in zip(masks, OBJECT_COLOURS):
                inner = video[row][mask].reshape(16, 16, 3)[4:-4, 4:-4].mean(axis=(0, 1))
                np.testing.assert_allclose(inner, GREY * 0.55 + np.array(colour) * 0.45, atol=12)
            assert np.abs(video[row][:, 28:36].astype(int) - GREY).max() < 12
        assert np.abs(video[3].astype(int) - GREY).max() < 20

    def test_colours_survive_the_encoding(self, tmp_path: Path) -> None:
        rgb = np.zeros((2, 32, 96, 3), np.uint8)
        for column, colour in enumerate([(200, 30, 30), (30, 160, 40), (40, 60, 200)]):
            rgb[:, :, 32 * column : 32 * column + 32] = colour
        video = write(tmp_path / "o.mp4", ArraySource(rgb), points(2))
        np.testing.assert_allclose(video[:, 8:24, 8:24], rgb[:, 8:24, 8:24], atol=12)
        np.testing.assert_allclose(video[:, 8:24, 72:88], rgb[:, 8:24, 72:88], atol=12)

    def test_the_source_is_not_drawn_on(self, tmp_path: Path) -> None:
        clip = grey_clip()
        write(tmp_path / "o.mp4", clip, points(6, (20, 20)), lambda row: np.ones((1, 48, 64), dtype=bool))
        assert (clip.read(clip.index).rgb == GREY).all()

    def test_visible_points_are_discs_and_hidden_points_are_rings(self, tmp_path: Path) -> None:
        visible_point = write(tmp_path / "a.mp4", grey_clip(1, 640, 480), points(1, (320, 240)))[0].astype(int)
        hidden = write(tmp_path / "b.mp4", grey_clip(1, 640, 480), points(1, (320, 240), visible=False))[0].astype(int)
        assert np.abs(visible_point[240, 320] - GREY).max() > 60
        assert np.abs(hidden[240, 320] - GREY).max() < 30
        assert np.abs(hidden[240, 322:326] - GREY).max() > 40
        assert np.abs(visible_point[240, 330:] - GREY).max() < 20

    def test_points_are_coloured_by_the_height_of_their_query(self, tmp_path: Path) -> None:
        frame = write(tmp_path / "o.mp4", grey_clip(1, 640, 480), points(1, (320, 100), (320, 240), (320, 380)))[0]
        assert [int(frame[y, 320].argmax()) for y in (100, 240, 380)] == [0, 1, 2]

    def test_a_moving_point_leaves_a_fading_trail(self, tmp_path: Path) -> None:
        clip = grey_clip(30, 640, 480)
        video = write(tmp_path / "o.mp4", clip, points(30, (40, 240), step=16)).astype(int)
        line = np.abs(video[29, 240] - GREY).max(axis=1)
        now = 40 + 29 * 16
        assert line[now - 3 * 16 - 8] > 40
        assert line[now - 3 * 16 - 8] > line[now - 7 * 16 - 8] > 10
        assert line[: now - 12 * 16].max() < 12

    def test_a_hidden_point_leaves_no_trail(self, tmp_path: Path) -> None:
        video = write(tmp_path / "o.mp4", grey_clip(8, 640, 480), points(8, (40, 240), step=16, visible=False))
        assert np.abs(video[7, 240, : 40 + 6 * 16].astype(int) - GREY).max() < 12

    def test_positions_outside_the_range_are_not_drawn(self, tmp_path: Path) -> None:
        tracks, queries = points(3, (20, 20), (30, 20), (40, 20))
        tracks.xy[:, 0], tracks.xy[:, 1], tracks.xy[1, 2] = np.nan, 3e38, -1e9
        video = write(tmp_path / "o.mp4", grey_clip(3), (tracks, queries)).astype(int)
        assert [int(np.abs(frame - GREY).max() > 40) for frame in video] == [1, 0, 1]


class TestStyle:
    def test_the_colour_of_an_object_depends_on_its_id_only(self, tmp_path: Path) -> None:
        masks = np.zeros((2, 48, 64), dtype=bool)
        masks[0, 8:24, 8:24] = masks[1, 24:40, 40:56] = True
        video = write(tmp_path / "o.mp4", grey_clip(), points(6), lambda row: masks, object_ids=(3, 5))
        for mask, object_id in zip(masks, (3, 5)):
            inner = video[2][mask].reshape(16, 16, 3)[4:-4, 4:-4].mean(axis=(0, 1))
            np.testing.assert_allclose(inner, GREY * 0.55 + np.array(object_colour(object_id)) * 0.45, atol=12)
        assert object_colour(1) == object_colour(1 + len(OBJECT_COLOURS))

    def test_points_can_have_the_colour_of_their_object(self, tmp_path: Path) -> None:
        tracks, queries = points(1, (320, 100), (320, 240), (320, 380))
        queries.object_id[:] = [1, 2, 2]
        frame = write(tmp_path / "o.mp4", grey_clip(1, 640, 480), (tracks, queries), colour="object")[0]
        for y, object_id in [(100, 1), (240, 2), (380, 2)]:
            np.testing.assert_allclose(frame[y, 320], object_colour(object_id), atol=30)

    def test_trail_length_can_be_set(self, tmp_path: Path) -> None:
        lengths = {}
        for trail in (0, 4, 25):
            clip = grey_clip(30, 640, 96)
            video = write(tmp_path / "o.mp4", clip, points(30, (40, 60), step=16), trail=trail).astype(int)
            lengths[trail] = int((np.abs(video[29, 60, : 40 + 29 * 16 - 10] - GREY).max(axis=1) > 12).sum()) / 16
        assert lengths[0] == 0
        assert 2 <= lengths[4] <= 4
        assert 17 <= lengths[25] <= 25

    def test_tint_and_outline_can_be_disabled(self, tmp_path: Path) -> None:
        masks = np.zeros((1, 480, 640), dtype=bool)
        masks[0, 200:300, 200:300] = True
        line = write(tmp_path / "o.mp4", grey_clip(1, 640, 480), points(1), lambda row: masks, tint=0.0)[0].astype(int)
        tint = write(tmp_path / "o.mp4", grey_clip(1, 640, 480), points(1), lambda row: masks, outline=False)[0].astype(
            int
        )
        assert np.abs(line[220:280, 220:280] - GREY).max() < 12
        assert np.abs(line[250, 199:202] - GREY).max() > 25
        assert np.abs(tint[250, 200] - tint[250, 250]).max() < 20

    def test_label_shows_frame_number_and_time(self, tmp_path: Path) -> None:
        clip = grey_clip(10, 640, 480)
        clip.keep(np.array([0, 9]))
        labelled = write(tmp_path / "o.mp4", clip, points(2)).astype(int)
        plain = write(tmp_path / "p.mp4", clip, points(2), label=False).astype(int)
        corner = labelled[:, 440:, :220]
        assert np.abs(plain - GREY).max() < 12
        assert corner.max() > 200, "letters"
        assert np.abs(labelled[:, :430] - GREY).max() < 12
        assert np.abs(corner[0] - corner[1]).max() > 100, "the number changes with the frame"

    def test_side_by_side_shows_the_source_on_the_left(self, tmp_path: Path) -> None:
        masks = np.ones((1, 48, 64), dtype=bool)
        video = write(tmp_path / "o.mp4", grey_clip(2), points(2), lambda row: masks, side_by_side=True).astype(int)
        assert video.shape == (2, 48, 128, 3)
        assert np.abs(video[:, :, 2:60] - GREY).max() < 12
        assert np.abs(video[:, 20:30, 80:110] - GREY).max() > 25

    def test_large_frames_are_reduced_with_their_masks_and_points(self, tmp_path: Path) -> None:
        masks = np.zeros((1, 480, 640), dtype=bool)
        masks[:, 240:, :320] = True
        drawn = points(1, (480, 120))
        options = {"max_height": 120, "label": False, "outline": False}
        (large,) = write(tmp_path / "l.mp4", grey_clip(1, 640, 480), drawn, lambda row: masks, **options).astype(int)
        assert large.shape == (120, 160, 3)
        is_changed = np.abs(large - GREY).max(axis=2) > 25
        assert is_changed[62:118, 2:78].all(), "the lower left quarter is tinted"
        rest = is_changed.copy()
        rest[58:, :82] = False
        y, x = np.nonzero(rest)
        # The centre of the pixel (480, 120) is at (480.5, 120.5) / 4 - 0.5.
        assert (x.mean(), y.mean()) == pytest.approx((119.625, 29.625), abs=0.5), "the point"

    def test_small_frames_are_not_enlarged(self, tmp_path: Path) -> None:
        assert write(tmp_path / "o.mp4", grey_clip(1), points(1)).shape == (1, 48, 64, 3)

    @pytest.mark.parametrize(("side", "is_full_size"), [(20, False), (300, True)])
    def test_discs_leave_most_of_a_small_mask_uncovered(self, tmp_path: Path, side: int, is_full_size: bool) -> None:
        """The discs of nine points in a mask; those of an object without a mask have the full size."""
        masks = np.zeros((1, 480, 640), dtype=bool)
        masks[0, 100 : 100 + side, 100 : 100 + side] = True
        grid = np.linspace(100 + side / 8, 100 + side * 7 / 8, 3)
        drawn = points(1, *((x, y) for y in grid for x in grid))
        options = {"tint": 0, "outline": False, "label": False, "trail": 0}
        clip = grey_clip(1, 640, 480)
        (without,) = write(tmp_path / "a.mp4", clip, points(1, (200, 200)), **options).astype(int)
        full_size = np.count_nonzero(np.abs(without - GREY).max(axis=2) > 25)
        (image,) = write(tmp_path / "b.mp4", clip, drawn, lambda row: masks, **options).astype(int)
        covered = np.count_nonzero(np.abs(image - GREY).max(axis=2) > 25)
        if is_full_size:
            assert covered == pytest.approx(9 * full_size, rel=0.1)
        else:
            assert 0.2 < covered / side**2 < 0.6

    @pytest.mark.slow
    def test_a_video_identifies_its_style(self, tmp_path: Path) -> None:
        default, *others = OverlayStyle(), OverlayStyle(trail=3), OverlayStyle(max_height=360)
        for num_frames in (1, 3000):
            write(tmp_path / "o.mp4", grey_clip(num_frames, 16, 16), points(num_frames))
            assert default.matches(tmp_path / "o.mp4")
            assert not any(other.matches(tmp_path / "o.mp4") for other in others)
        assert not default.matches(tmp_path / "nowhere.mp4")
        (tmp_path / "o.mp4").write_bytes(b"\0" * 40)
        assert not default.matches(tmp_path / "o.mp4")

    @pytest.mark.parametrize("wrong", [{"trail": 256}, {"tint": 1.5}, {"colour": "red"}, {"colours": "start"}])
    def test_invalid_styles_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            OverlayStyle.model_validate(wrong)


class TestFile:
    @pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (64, 47), (1, 1)])
    def test_odd_sizes_are_padded_to_even_by_replication(self, tmp_path: Path, width: int, height: int) -> None:
        video = write(tmp_path / "o.mp4", grey_clip(3, width, height), points(3))
        assert video.shape == (3, height + height % 2, width + width % 2, 3)
        assert np.abs(video.astype(int) - GREY).max() < 8

    def test_a_single_frame_lasts_one_frame_period(self, tmp_path: Path) -> None:
        assert len(write(tmp_path / "o.mp4", grey_clip(1, fps=10.0), points(1, (20, 20)))) == 1
        with av.open(tmp_path / "o.mp4") as container:
            assert container.duration == pytest.approx(100_000, rel=0.02)

    def test_frames_keep_their_relative_times(self, tmp_path: Path) -> None:
        clip = grey_clip(5)
        clip.time = np.array([100.0, 100.04, 100.5, 100.51, 103.0])
        assert len(write(tmp_path / "o.mp4", clip, points(5))) == 5
        assert [float(time) for time in times(tmp_path / "o.mp4")] == pytest.approx([0, 0.04, 0.5, 0.51, 3.0], abs=1e-4)

    def test_equal_times_become_strictly_increasing(self, tmp_path: Path) -> None:
        clip = grey_clip(5)
        clip.time = np.array([0.0, 0.04, 0.04, 0.04, 0.08])
        write(tmp_path / "o.mp4", clip, points(5))
        shown = times(tmp_path / "o.mp4")
        assert np.diff(shown).min() > 0

    @pytest.mark.parametrize("interval", [1e-6, 3600.0])
    def test_extreme_frame_rates_are_encoded(self, tmp_path: Path, interval: float) -> None:
        clip = grey_clip(3)
        clip.time = np.arange(3) * interval
        assert len(write(tmp_path / "o.mp4", clip, points(3))) == 3

    def test_only_kept_frames_are_drawn_with_their_rows(self, tmp_path: Path) -> None:
        rgb = np.stack([np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)])
        clip = ArraySource(rgb)
        clip.keep(np.array([0, 4, 9]))
        drawn: list[int] = []
        video = write(tmp_path / "o.mp4", clip, points(3), drawn.append)
        np.testing.assert_allclose(video.mean(axis=(1, 2, 3)), [0, 80, 180], atol=3)
        assert [float(time) for time in times(tmp_path / "o.mp4")] == pytest.approx([0, 0.16, 0.36])
        assert drawn == [0, 1, 2]

    def test_a_browser_can_play_it(self, tmp_path: Path) -> None:
        write(tmp_path / "o.mp4", grey_clip(), points(6))
        with av.open(tmp_path / "o.mp4") as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 6)
        data = (tmp_path / "o.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")

    def test_an_existing_video_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "o.mp4").write_text("old")
        assert len(write(tmp_path / "o.mp4", grey_clip(), points(6))) == 6
        assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


class TestErrors:
    def test_an_unwritable_folder_is_a_write_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(WriteError, match=r"file/o\.mp4 could not be written"):
            write(tmp_path / "file" / "o.mp4", grey_clip(), points(6))

    def test_folder_at_the_target_path_is_a_write_error(self, tmp_path: Path) -> None:
        (tmp_path / "o.mp4").mkdir()
        with pytest.raises(WriteError, match="could not be written"):
            write(tmp_path / "o.mp4", grey_clip(), points(6))
        assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
    def test_a_full_disk_is_a_write_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = av.open
        monkeypatch.setattr(av, "open", lambda path, *rest, **options: real("/dev/full", *rest, **options))
        with pytest.raises(WriteError, match="cannot write the overlay"):
            write(tmp_path / "o.mp4", grey_clip(), points(6))

    def test_an_error_of_the_source_leaves_the_old_video(self, tmp_path: Path) -> None:
        (tmp_path / "o.mp4").write_text("old")
        clip = grey_clip()

        def fail(index: np.ndarray) -> np.ndarray:
            raise DecodeError("frame 0 is broken")

        clip._read = fail  # type: ignore[method-assign]
        with pytest.raises(DecodeError, match="frame 0 is broken"):
            write(tmp_path / "o.mp4", clip, points(6))
        assert (tmp_path / "o.mp4").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]

    def test_out_of_memory_while_encoding_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise MemoryError("no more")

        monkeypatch.setattr(VideoWriter, "_mux", fail)
        with pytest.raises(
            OutOfMemory, match=r"while encoding the overlay .*o\.mp4; use a larger frame_interval, or set"
        ):
            write(tmp_path / "o.mp4", grey_clip(), points(6))
        assert not list(tmp_path.iterdir())

    def test_tracks_of_another_clip_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"got tracks \(5, 0, 2\), expected \(6, 0, 2\)"):
            write(tmp_path / "o.mp4", grey_clip(), points(5))
