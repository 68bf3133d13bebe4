"""Exports for learning, each read as its consumer's own loader does."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from aot.errors import ConfigError, ExportError
from aot.export.atm import AtmExporter
from aot.export.base import ExportedClip
from aot.export.general_flow import GeneralFlowExporter
from aot.export.im2flow2act import Im2Flow2ActExporter
from aot.export.options import ExportOptions
from aot.export.shape_of_motion import ShapeOfMotionExporter
from aot.export.tracegen import TraceGenExporter
from aot.export.track2act import Track2ActExporter
from aot.export.wan_move import WanMoveExporter
from aot.types import Clip, Prompt
from tests.results import write_result
from tests.synthetic import moving_square

NUM_FRAMES, HEIGHT, WIDTH, NUM_POINTS = 10, 64, 96, 6
PLAIN = ExportOptions()


def write_clip(root: Path, num_frames: int = NUM_FRAMES) -> ExportedClip:
    """Frames, a mug, a hand, and six points; the last is of the hand, and the first is lost on row 5."""
    frames = root / "frames"
    frames.mkdir()
    for t, rgb in enumerate(moving_square(num_frames)):
        Image.fromarray(rgb).save(frames / f"{t:05d}.png")
    start = np.stack([12 + 2 * np.arange(NUM_POINTS), 22 + 2 * np.arange(NUM_POINTS)], axis=1)
    xy = start[None] + np.arange(num_frames)[:, None, None] * [2, 0]
    visible = np.ones((num_frames, NUM_POINTS), dtype=np.bool_)
    visible[5:, 0] = False
    masks = np.zeros((num_frames, 2, HEIGHT, WIDTH), dtype=np.bool_)
    for t in range(num_frames):
        masks[t, 0, 20:40, 8 + 2 * t : 28 + 2 * t] = True
        masks[t, 1, 50:60, 70:80] = True
    prompts = (Prompt(1, 0, name="mug", box=(8, 20, 28, 40)), Prompt(2, 0, name="hand", box=(70, 50, 80, 60)))
    path = write_result(
        root / "a.h5",
        masks=masks,
        queries=[(0, x, y, 1 + (n == NUM_POINTS - 1)) for n, (x, y) in enumerate(start)],
        xy=xy,
        visible=visible,
        clip=Clip("a", frames, prompts),
    )
    return ExportedClip("a", path)


@pytest.fixture
def clip(tmp_path: Path) -> ExportedClip:
    return write_clip(tmp_path)


def test_atm(clip: ExportedClip, tmp_path: Path) -> None:
    """Its dataset reads root/<view>, and multiplies the tracks by the size of the image."""
    with h5py.File(AtmExporter(PLAIN).export(clip, tmp_path)) as file:
        view = file["root/agentview"]
        video, tracks, vis = view["video"][()], view["tracks"][()], view["vis"][()]
    assert (video.shape, video.dtype) == ((1, NUM_FRAMES, 3, 128, 128), np.uint8)
    assert (tracks.shape, vis.shape) == ((1, NUM_FRAMES, NUM_POINTS, 2), (1, NUM_FRAMES, NUM_POINTS))
    px = tracks[0] * 128
    expected = (clip.result.tracks.xy + 0.5) * [128 / WIDTH, 128 / HEIGHT] - 0.5
    np.testing.assert_allclose(px, expected, atol=1e-4)
    assert np.array_equal(vis[0] > 0, clip.result.lifetimes.valid)
    png = np.asarray(Image.open(tmp_path / "images" / "a" / "agentview_3.png"))
    assert np.array_equal(png, video[0, 3].transpose(1, 2, 0))


def test_wan_move(clip: ExportedClip, tmp_path: Path) -> None:
    WanMoveExporter(PLAIN).export(clip, tmp_path)
    tracks, visibility = np.load(tmp_path / "a_tracks.npy"), np.load(tmp_path / "a_visibility.npy")
    assert (tracks.shape, visibility.shape) == ((1, 81, NUM_POINTS, 2), (1, 81, NUM_POINTS))
    assert np.asarray(Image.open(tmp_path / "a.jpg")).shape == (480, 832, 3)
    np.testing.assert_allclose(tracks[0, 0], (clip.result.tracks.xy[0] + 0.5) * [832 / 96, 7.5] - 0.5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a.h5", "a.jpg", "a_tracks.npy", "a_visibility.npy"]
    with pytest.raises(ConfigError, match="--num-frames 80: Wan-Move expects 4n"):
        WanMoveExporter(ExportOptions(num_frames=80))


def test_general_flow(clip: ExportedClip, tmp_path: Path) -> None:
    folder = GeneralFlowExporter().export(clip, tmp_path)
    tracks, visibility, mask_obj, mask_hand = (
        np.load(folder / f"{name}.npy") for name in ("kps_tracks", "kps_visibility", "mask_obj", "mask_hand")
    )
    assert (tracks.shape, visibility.shape) == ((NUM_FRAMES, NUM_POINTS - 1, 2), (NUM_FRAMES, NUM_POINTS - 1))
    assert (mask_obj.shape, int(mask_obj.sum()), int(mask_hand.sum())) == ((HEIGHT, WIDTH), 400, 100)
    x, y = tracks[0].astype(int).T
    assert mask_obj[y, x].all()


def test_tracegen(clip: ExportedClip, tmp_path: Path) -> None:
    """Its dataset pairs images and samples of the same stem, and takes −inf as the end of a trajectory."""
    folder = TraceGenExporter(PLAIN).export(clip, tmp_path)
    pairs = [(path, folder / "samples" / f"{path.stem}.npz") for path in sorted((folder / "images").glob("*.png"))]
    assert len(pairs) == NUM_FRAMES - 1
    for row, (image, sample) in enumerate(pairs):
        with np.load(sample) as arrays:
            keypoints, traj, steps = arrays["keypoints"], arrays["traj"], arrays["valid_steps"]
        assert np.asarray(Image.open(image)).shape == (HEIGHT, WIDTH, 3)
        assert (keypoints.shape, traj.shape) == ((400, 2), (400, 128, 2))
        assert int(steps.sum()) == NUM_FRAMES - row
        assert np.array_equal(traj[:, 0], keypoints)
        ends = np.isfinite(traj[..., 0]).sum(axis=1)
        lost = keypoints[:, 1] == 22
        assert set(ends[~lost]) == {NUM_FRAMES - row}
        assert set(ends[lost]) <= {5 - row}
        assert lost.any() == (row < 5)


def test_track2act(clip: ExportedClip, tmp_path: Path) -> None:
    """Its dataset flattens the eight frames of 400 points, and divides by 96; its network takes images as floats."""
    (path,) = Track2ActExporter().export(clip, tmp_path).iterdir()
    sample = pickle.loads(path.read_bytes())
    flat = sample["action"].squeeze().reshape(8, 800)
    assert (flat.min() >= 0, flat.max() <= 96) == (True, True)
    moved = flat.reshape(8, 400, 2)[:, :, 0]
    np.testing.assert_allclose(np.diff(moved, axis=0), 2, rtol=1e-4)
    assert sample["img"].shape == (8, 3, 96, 96)
    assert sample["img"].dtype == np.float32
    (first, *_) = clip.result.frames((96, 96))
    np.testing.assert_array_equal(sample["img"][0], first.transpose(2, 0, 1))


def test_track2act_requires_eight_frames(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a: has 7 kept frames; track2act requires at least 8"):
        Track2ActExporter().export(write_clip(tmp_path, 7), tmp_path)


def read_zarr(folder: Path) -> np.ndarray:
    """An array in version 2 of the Zarr format, as its specification says."""
    meta: dict[str, Any] = json.loads((folder / ".zarray").read_text())
    assert (meta["zarr_format"], meta["order"], meta["filters"], meta["compressor"]["id"]) == (2, "C", None, "zlib")
    found = np.empty(meta["shape"], dtype=meta["dtype"])
    chunks = meta["chunks"]
    for path in folder.iterdir():
        if not path.name.startswith("."):
            where = tuple(slice(int(i) * n, (int(i) + 1) * n) for i, n in zip(path.name.split("."), chunks))
            found[where] = np.frombuffer(zlib.decompress(path.read_bytes()), meta["dtype"]).reshape(chunks)
    return found


def test_im2flow2act(clip: ExportedClip, tmp_path: Path) -> None:
    """Its dataset takes the square root of the number of points in the box as the side of a grid."""
    folder = Im2Flow2ActExporter([clip]).export(clip, tmp_path)
    assert folder == tmp_path / "episode_0"
    assert json.loads((tmp_path / ".zgroup").read_text()) == json.loads((folder / ".zgroup").read_text())
    arrays = {path.name: read_zarr(path) for path in folder.iterdir() if path.is_dir()}
    sequence = arrays["point_tracking_sequence"]
    assert sequence.shape == (NUM_POINTS, NUM_FRAMES, 3)
    expected = (clip.result.tracks.xy + 0.5) * [256 / WIDTH, 256 / HEIGHT] - 0.5
    np.testing.assert_allclose(sequence[..., :2].swapaxes(0, 1), expected, rtol=1e-5)
    assert np.array_equal(sequence[..., 2].T > 0, clip.result.lifetimes.valid)
    assert arrays["bbox_point_tracking_sequence"].shape == (32 * 32, NUM_FRAMES, 3)
    assert (arrays["rgb_arr"].shape, arrays["rgb_arr"].dtype) == ((NUM_FRAMES, 256, 256, 3), np.uint8)
    assert arrays["sam_mask"].shape == (256, 256)
    assert set(np.unique(arrays["sam_mask"])) == {0, 1, 2}
    assert arrays["moving_mask"].all()
    assert arrays["task_description"].tolist() == ["mug, hand"]
    x0, y0, x1, y1 = arrays["bbox"]
    np.testing.assert_allclose([x0, y0, x1, y1], [8 * 256 / 96, 80, 80 * 256 / 96, 240], atol=2)


def test_shape_of_motion(clip: ExportedClip, tmp_path: Path) -> None:
    """Its dataset stacks the arrays of one query frame, and takes sigmoids of the logits."""
    ShapeOfMotionExporter().export(clip, tmp_path)
    names = [path.stem for path in sorted((tmp_path / "images" / "a").iterdir())]
    assert len(names) == NUM_FRAMES
    mask = np.asarray(Image.open(tmp_path / "masks" / "a" / f"{names[2]}.png"))
    assert int((mask > 0).sum()) == 500
    for q in (0, 7):
        tracks = np.stack([np.load(tmp_path / "bootstapir" / "a" / f"{names[q]}_{name}.npy") for name in names], axis=1)
        assert tracks.shape == (NUM_POINTS - (q >= 5), NUM_FRAMES, 4)
        hidden, wrong = (1 / (1 + np.exp(-tracks[..., channel])) for channel in (2, 3))
        is_visible = (1 - hidden) * (1 - wrong) > 0.5
        own = clip.result.lifetimes.valid[:, clip.result.lifetimes.valid[q]]
        assert np.array_equal(is_visible, own.T)
        np.testing.assert_allclose(tracks[:, 3, 0] - tracks[:, 2, 0], 2)
