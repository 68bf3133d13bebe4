"""Dense flow inside masks, and its files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aot.errors import ConfigError
from aot.export.base import ExportedClip
from aot.export.dense_flow import FlowField, interpolate
from aot.export.flow import FlowExporter, flow_fields
from aot.export.flow_files import flow_colours, write_flo, write_kitti, write_npz
from aot.export.options import ExportOptions, check_options
from aot.types import Clip, Prompt
from tests.results import write_result

SIZE = (40, 60)
MAP = np.array([[0.96, -0.2, 8.0], [0.2, 0.96, -3.0]])


def lattice() -> np.ndarray:
    y, x = np.mgrid[8:33:6, 6:55:6]
    return np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)


def moved(xy: np.ndarray) -> np.ndarray:
    return xy @ MAP[:, :2].T + MAP[:, 2]


def mask() -> np.ndarray:
    found = np.zeros(SIZE, np.bool_)
    found[6:36, 4:56] = True
    return found


def test_the_field_of_an_affine_motion_is_exact() -> None:
    field = interpolate(mask(), lattice(), moved(lattice()).astype(np.float32))
    y, x = np.nonzero(mask())
    pixels = np.column_stack([x, y])
    np.testing.assert_allclose(field.flow[y, x], moved(pixels) - pixels, atol=1e-3)
    np.testing.assert_array_equal(field.valid, mask())
    assert not field.flow[~mask()].any()


def test_points_that_move_differently_decide_near_them() -> None:
    after = lattice().copy()
    left = after[:, 0] < 30
    after[left] += [3, 0]
    field = interpolate(mask(), lattice(), after)
    np.testing.assert_allclose(field.flow[20, 8], [3, 0], atol=0.2)
    np.testing.assert_allclose(field.flow[20, 52], [0, 0], atol=0.2)


def test_pixels_far_from_every_point_are_not_valid() -> None:
    near_left = lattice()[lattice()[:, 0] < 20]
    field = interpolate(mask(), near_left, near_left)
    assert field.valid[20, 20]
    assert not field.valid[20, 50]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points_give_no_field(count: int) -> None:
    points = lattice()[:count]
    assert not interpolate(mask(), points, points).valid.any()


def test_an_empty_mask_gives_no_field() -> None:
    assert not interpolate(np.zeros(SIZE, np.bool_), lattice(), lattice()).valid.any()


@pytest.fixture
def field() -> FlowField:
    rng = np.random.default_rng(3)
    flow = rng.uniform(-40, 40, (*SIZE, 2)).astype(np.float32)
    return FlowField(flow, mask())


def test_flo_files_are_read_back(field: FlowField, tmp_path: Path) -> None:
    write_flo(tmp_path / "a.flo", field)
    found = cv2.readOpticalFlow(str(tmp_path / "a.flo"))
    np.testing.assert_array_equal(found[mask()], field.flow[mask()])
    assert (found[~mask()] > 1e9).all()


def test_kitti_images_are_read_back(field: FlowField, tmp_path: Path) -> None:
    field.flow[10, 10] = [600, 0]
    write_kitti(tmp_path / "a.png", field)
    found = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    valid = found[..., 0] == 1
    assert not valid[10, 10], "512 px or more do not fit"
    valid[10, 10] = True
    np.testing.assert_array_equal(valid, mask())
    valid[10, 10] = False
    decoded = (found[..., :0:-1].astype(np.float64) - 2**15) / 64
    np.testing.assert_allclose(decoded[valid], field.flow[valid], atol=1 / 128 + 1e-6)


def test_npz_files_are_read_back(field: FlowField, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", field)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["flow"][mask()], field.flow[mask()])
        assert np.isnan(found["flow"][~mask()]).all()
        np.testing.assert_array_equal(found["valid"], mask())


def test_colours_show_the_direction() -> None:
    flow = np.array([[[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]], dtype=np.float32)
    right, down, left, up, still = flow_colours(flow, 1.0)[0].tolist()
    assert right[0] > 240, "right is red"
    assert right[2] < 60
    assert down[0] > 200, "down is yellow"
    assert down[1] > 160
    assert left[2] > 200, "left is blue to cyan"
    assert up[2] > 200, "up is blue to violet"
    assert still == [255, 255, 255]


@pytest.fixture
def clip(tmp_path: Path) -> ExportedClip:
    """Two objects side by side on three frames; the left one moves by (2, 1) per frame, the right one by (−1, 0)."""
    masks = np.zeros((3, 2, *SIZE), np.bool_)
    masks[:, 0, 5:35, 2:28], masks[:, 1, 5:35, 30:58] = True, True
    points = [[0, x, y, 1 if x < 29 else 2] for x, y in lattice().tolist()]
    velocity = np.array([[2, 1] if point[3] == 1 else [-1, 0] for point in points])
    xy = np.stack([lattice() + velocity * t for t in range(3)])
    prompts = (Prompt(1, 0, box=(0, 0, 1, 1)), Prompt(2, 0, box=(0, 0, 1, 1)))
    path = write_result(
        tmp_path / "a.h5", masks=masks, queries=points, xy=xy, clip=Clip("a", tmp_path / "a.mp4", prompts)
    )
    return ExportedClip("a", path)


def test_each_object_has_its_own_flow_in_both_directions(clip: ExportedClip) -> None:
    forward, backward = dict(flow_fields(clip, 1)), dict(flow_fields(clip, -1))
    assert list(forward) == [0, 1]
    assert list(backward) == [1, 2]
    for fields, sign in ((forward, 1), (backward, -1)):
        for field in fields.values():
            np.testing.assert_allclose(field.flow[20, 15], [2 * sign, sign], atol=1e-3)
            np.testing.assert_allclose(field.flow[20, 45], [-sign, 0], atol=1e-3)
            assert not field.valid[2].any()


def test_only_the_requested_files_are_written(clip: ExportedClip, tmp_path: Path) -> None:
    folder = FlowExporter(("kitti", "colours")).export(clip, tmp_path / "out")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert names == [
        "backward/00001.png", "backward/00001_colours.png", "backward/00002.png", "backward/00002_colours.png",
        "forward/00000.png", "forward/00000_colours.png", "forward/00001.png", "forward/00001_colours.png",
    ]  # fmt: skip


def test_flow_files_belong_to_the_format_flow() -> None:
    with pytest.raises(ConfigError, match=r"--flow-files: --format davis does not have this option"):
        check_options("davis", ExportOptions(flow_files=("flo",)))
    check_options("flow", ExportOptions(flow_files=("flo",)))
