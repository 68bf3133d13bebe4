"""The demo dataset: five short rendered clips whose masks and tracks are known exactly. Nothing is downloaded.

    <root>/
      spin.mp4  zoom.mp4  hide.mp4  pair.mp4  late.mp4
      prompts.yaml                 the prompt manifest
      masks/<clip_id>_<id>.png     the prompts that are masks
      truth/<clip_id>.npz          read by `aot.datasets.ground_truth.SceneTruth`
      version.json                 marks the folder as ours, and as whole

Every thing in a scene is a flat textured picture (a layer) that an affine motion puts on the screen; the motion is the
truth. Positions are pixels with centres at integers, in a layer's own picture as on the screen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aot.errors import DatasetError
from aot.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

WIDTH, HEIGHT, FPS = 320, 240, 25
MARKER = "version.json"
MANIFEST = "prompts.yaml"

_GENERATOR = "aot demo scenes"
# To be raised when the code below draws something else; changes of the scenes themselves are noticed by their hash.
_VERSION = 1
_SEED = 20240613
# Drawn at twice the size and averaged: antialiased edges, and positions to 1/64 px (OpenCV interpolates in 1/32 px).
_SUPERSAMPLING = 2
# The same bytes every time: one thread, and without the macroblock tree, whose vector code is not repeatable on every
# processor (3 of 4 encodings differed on one).
_ENCODER_OPTIONS = {"crf": "12", "preset": "fast", "threads": "1", "x264-params": "mbtree=0"}
_NOISE_LEVELS = 2.0
_BOX_MARGIN = 2

_MANIFEST_HEAD = """\
# Prompts of the demo clips, taken from the truth. `python -m aot.prompt dataset=...` makes them for your own videos.
clips:
"""

_Colour = tuple[int, int, int]
_Number = TypeVar("_Number", np.uint8, np.float32)


# The scenes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pose:
    """Where a layer is on one frame; between poses it moves smoothly."""

    frame: int
    x: float
    """Of the layer's centre, in px."""
    y: float
    degrees: float = 0.0
    """Clockwise on the screen."""
    scale: float = 1.0


@dataclass(frozen=True)
class _Layer:
    """One textured thing: an object, something that hides it, or the background."""

    poses: tuple[_Pose, ...]
    size: tuple[int, int]
    """Width and height of its picture in px."""
    colours: tuple[_Colour, ...]
    """RGB, mixed by the texture."""
    shape: str
    """blob, bar, or plain (all of the picture)."""
    lobes: int = 3
    """Bumps on a blob's outline."""
    grain: int = 7
    """Size of the texture's smallest patches in px."""
    object_id: int = 0
    """0: scenery."""


@dataclass(frozen=True)
class _Prompt:
    """What the manifest says about one object; boxes and masks are taken from the truth."""

    object_id: int
    name: str
    frame: int
    box: bool = False
    mask: bool = False
    points: tuple[tuple[float, float, int], ...] = ()
    """(x, y, label) with the layer's half width and half height as units, from its centre."""


@dataclass(frozen=True)
class _Scene:
    clip_id: str
    comment: str
    num_frames: int
    layers: tuple[_Layer, ...]
    """Back to front; the background is first."""
    prompts: tuple[_Prompt, ...]


_RED = ((196, 52, 40), (236, 132, 60), (120, 24, 32), (112, 118, 70))
_YELLOW = ((226, 182, 40), (250, 228, 120), (150, 96, 20), (110, 146, 140))
_BLUE = ((36, 84, 190), (110, 170, 240), (20, 32, 96), (196, 186, 160))
_PINK = ((206, 60, 140), (246, 160, 200), (110, 20, 84), (250, 226, 190))
_ORANGE = ((232, 120, 30), (250, 190, 90), (140, 56, 16), (90, 40, 60))
_STEEL = ((74, 80, 92), (150, 160, 176), (40, 44, 52), (200, 206, 214))
# The last colour of each background is near one of the object before it: colour alone is not enough to cut it out.
_FOREST = ((52, 92, 58), (104, 134, 82), (34, 56, 52), (140, 140, 110), (70, 110, 60), (166, 86, 50))
_SHORE = ((44, 98, 112), (86, 146, 150), (30, 58, 82), (150, 170, 160), (60, 120, 140), (206, 180, 96))
_SAND = ((176, 156, 122), (206, 188, 152), (130, 112, 92), (112, 122, 124), (190, 170, 130), (84, 116, 176))
_STONE = ((120, 118, 116), (160, 156, 150), (82, 84, 92), (186, 180, 164), (190, 150, 70), (170, 90, 136))
_SEA = ((44, 98, 112), (86, 146, 150), (30, 58, 82), (150, 170, 160), (60, 120, 140), (170, 106, 60))


def _background(colours: tuple[_Colour, ...], *poses: _Pose) -> _Layer:
    return _Layer(poses=poses, size=(520, 420), colours=colours, shape="plain", grain=12)


_SCENES = (
    _Scene(
        clip_id="spin",
        comment="turns by 200 degrees while it drifts; prompted by a box",
        num_frames=48,
        layers=(
            _background(_FOREST, _Pose(0, 150, 124), _Pose(47, 178, 112, 3)),
            _Layer(
                poses=(_Pose(0, 112, 132, -20), _Pose(24, 160, 104, 90, 1.05), _Pose(47, 214, 126, 180)),
                size=(124, 92),
                colours=_RED,
                shape="blob",
                lobes=3,
                object_id=1,
            ),
        ),
        prompts=(_Prompt(1, "red stone", 0, box=True),),
    ),
    _Scene(
        clip_id="zoom",
        comment="comes closer, from 0.55 to 1.45 of its size; prompted by two points on it and one beside it",
        num_frames=50,
        layers=(
            _background(_SHORE, _Pose(0, 160, 120, 0, 0.9), _Pose(49, 150, 126, -4, 1.08)),
            _Layer(
                poses=(_Pose(0, 96, 92, 8, 0.55), _Pose(28, 150, 112, -10, 0.95), _Pose(49, 188, 132, 6, 1.45)),
                size=(112, 104),
                colours=_YELLOW,
                shape="blob",
                lobes=5,
                object_id=1,
            ),
        ),
        prompts=(_Prompt(1, "yellow star", 0, points=((-0.25, -0.1, 1), (0.3, 0.2, 1), (1.35, -0.6, 0))),),
    ),
    _Scene(
        clip_id="hide",
        comment="passes behind a post that hides more than half of it at once; prompted by a box and two points",
        num_frames=60,
        layers=(
            _background(_SAND, _Pose(0, 172, 118), _Pose(59, 146, 124)),
            _Layer(
                poses=(_Pose(0, 70, 116, 0), _Pose(30, 166, 128, 12), _Pose(59, 262, 112, 24)),
                size=(88, 88),
                colours=_BLUE,
                shape="blob",
                lobes=4,
                grain=6,
                object_id=1,
            ),
            _Layer(
                poses=(_Pose(0, 214, 8, 4), _Pose(59, 126, 12, -4)),
                size=(60, 260),
                colours=_STEEL,
                shape="bar",
                grain=9,
            ),
        ),
        prompts=(_Prompt(1, "blue clover", 0, box=True, points=((-0.2, 0.2, 1), (0.3, -0.3, 1))),),
    ),
    _Scene(
        clip_id="pair",
        comment="two objects, the second crosses in front of the first; prompted by a mask and by a box",
        num_frames=50,
        layers=(
            _background(_STONE, _Pose(0, 156, 116, 2), _Pose(49, 166, 126, -2)),
            _Layer(
                poses=(_Pose(0, 92, 88, 0), _Pose(49, 150, 102, -35, 1.15)),
                size=(108, 88),
                colours=_PINK,
                shape="blob",
                lobes=3,
                object_id=1,
            ),
            _Layer(
                poses=(_Pose(0, 248, 176, 10, 0.95), _Pose(26, 168, 140, 55), _Pose(49, 70, 168, 110)),
                size=(76, 68),
                colours=_YELLOW,
                shape="blob",
                lobes=4,
                grain=6,
                object_id=2,
            ),
        ),
        prompts=(_Prompt(1, "pink leaf", 0, mask=True), _Prompt(2, "yellow flower", 0, box=True)),
    ),
    _Scene(
        clip_id="late",
        comment="prompted by a mask on frame 24 of 48, with the object in sight before and after it",
        num_frames=48,
        layers=(
            _background(_SEA, _Pose(0, 170, 128, -2), _Pose(47, 148, 114, 2)),
            _Layer(
                poses=(_Pose(0, 226, 84, 40, 0.8), _Pose(24, 150, 132, 0, 1.1), _Pose(47, 92, 112, -50, 0.9)),
                size=(104, 92),
                colours=_ORANGE,
                shape="blob",
                lobes=5,
                object_id=1,
            ),
        ),
        prompts=(_Prompt(1, "orange flower", 24, mask=True),),
    ),
)


# The folder ----------------------------------------------------------------------------------------------------------


def ensure_demo(root: Path) -> None:
    """Generate the demo dataset in `root` unless it is there already, whole and current.

    Raises:
        DatasetError: `root` holds something else; nothing in it was touched.
    """
    if not _is_current(root):
        generate_demo(root)


def generate_demo(root: Path) -> None:
    """Render the clips with their truth and prompts, and put them in `root` in one step.

    An older or incomplete demo folder is set aside as `<root>.old-<number>`, never deleted: prompts may have been
    edited in it. Any number of processes may do this at once; one folder wins, and all are alike.

    Raises:
        DatasetError: `root` holds something else (nothing in it was touched), or cannot be written.
    """
    root = root.absolute()
    try:
        _refuse_foreign(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
            # A folder inside the temporary one: the latter is private to this user, the dataset shall not be.
            built = Path(scratch) / "demo"
            built.mkdir()
            _write_dataset(built)
            _put(built, root)
    except (OSError, av.FFmpegError) as exc:
        raise DatasetError(f"cannot write the demo clips to {root}: {exc}; choose a writable dataset.root") from exc


def _write_dataset(folder: Path) -> None:
    (folder / "truth").mkdir()
    (folder / "masks").mkdir()
    prompts = [_MANIFEST_HEAD]
    for scene in _SCENES:
        masks = _write_clip(scene, folder / f"{scene.clip_id}.mp4")
        _write_truth(scene, masks, folder / "truth" / f"{scene.clip_id}.npz")
        prompts.append(_manifest_entry(scene, masks, folder))
    (folder / MANIFEST).write_text("".join(prompts), encoding="utf-8")
    # Last: what bears the marker is whole.
    (folder / MARKER).write_text(json.dumps(_marker() | {"files": _sizes(folder)}, indent=1) + "\n", encoding="utf-8")


def _put(built: Path, root: Path) -> None:
    if _is_current(root):
        return
    _refuse_foreign(root)
    if _marker_of(root):
        _set_aside(root)
    try:
        built.replace(root)
    except OSError:
        # Another process was first: a folder that is not empty cannot be replaced.
        if not _is_current(root):
            raise


def _set_aside(root: Path) -> None:
    number = 1
    while (aside := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    # Missing: another process has just set it aside.
    with suppress(FileNotFoundError):
        root.rename(aside)


def _refuse_foreign(root: Path) -> None:
    is_free = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if is_free or _marker_of(root):
        return
    raise DatasetError(
        f"{root} holds something that is not the demo dataset (no {MARKER} of ours in it); nothing in it was touched. "
        f"Choose an empty or new folder as dataset.root"
    )


def _is_current(root: Path) -> bool:
    """Whether all that this version of the generator writes is there; the manifest may have been edited."""
    marker = _marker_of(root)
    expected = _marker()
    if {key: marker.get(key) for key in expected} != expected or not (root / MANIFEST).is_file():
        return False
    files = cast(dict[str, int], marker.get("files", {}))
    return bool(files) and all(
        (root / name).is_file() and (root / name).stat().st_size == size for name, size in files.items()
    )


def _marker() -> dict[str, object]:
    drawing = [WIDTH, HEIGHT, FPS, _SEED, _SUPERSAMPLING, _ENCODER_OPTIONS, _NOISE_LEVELS]
    parameters = [*drawing, [asdict(scene) for scene in _SCENES]]
    digest = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()
    return {"generator": _GENERATOR, "version": _VERSION, "parameters_sha256": digest}


def _marker_of(root: Path) -> dict[str, object]:
    """The marker in a folder; empty where there is none of ours."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and marker.get("generator") == _GENERATOR else {}


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


# Files of one clip ---------------------------------------------------------------------------------------------------


def _write_clip(scene: _Scene, path: Path) -> BoolArray:
    """Encode the rendered frames; returns the visible masks, (T, K, H, W)."""
    masks = []
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, (rgb, visible) in enumerate(_render(scene)):
            masks.append(visible)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.stack(masks)


def _write_truth(scene: _Scene, masks: BoolArray, path: Path) -> None:
    objects = [layer for layer in scene.layers if layer.object_id]
    np.savez_compressed(
        path,
        masks_packed=np.packbits(masks),
        masks_shape=np.array(masks.shape, dtype=np.int64),
        object_id=np.array([layer.object_id for layer in objects], dtype=np.int32),
        motion=np.stack([_motion(layer, scene.num_frames) for layer in objects], axis=1),
    )


def _manifest_entry(scene: _Scene, masks: BoolArray, folder: Path) -> str:
    lines = [f"  {scene.clip_id}:  # {scene.comment}\n", "    objects:\n"]
    objects = [layer for layer in scene.layers if layer.object_id]
    for prompt in scene.prompts:
        row = [layer.object_id for layer in objects].index(prompt.object_id)
        mask = masks[prompt.frame, row]
        lines.append(f"      - id: {prompt.object_id}\n        name: {prompt.name}\n        frame: {prompt.frame}\n")
        if prompt.box:
            lines.append(f"        box: {_loose_box(mask)}\n")
        if prompt.points:
            motion = _motion(objects[row], scene.num_frames)[prompt.frame]
            lines.append(f"        points: {_screen_points(prompt, objects[row], motion)}\n")
            labels = [label for _, _, label in prompt.points]
            about = "  # 1: on the object, 0: on the background" if 0 in labels else ""
            lines.append(f"        labels: {labels}{about}\n")
        if prompt.mask:
            name = f"masks/{scene.clip_id}_{prompt.object_id}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
            lines.append(f"        mask: {name}\n")
    return "".join(lines)


def _loose_box(mask: BoolArray) -> list[int]:
    """x0, y0, x1, y1 with a small margin, as a hand would draw it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    low = np.maximum([columns[0] - _BOX_MARGIN, rows[0] - _BOX_MARGIN], 0)
    high = np.minimum([columns[-1] + _BOX_MARGIN, rows[-1] + _BOX_MARGIN], [WIDTH - 1, HEIGHT - 1])
    return [int(value) for value in (*low, *high)]


def _screen_points(prompt: _Prompt, layer: _Layer, motion: Float64Array) -> list[list[int]]:
    half = np.array(layer.size) / 2
    own = _centre(layer) + half * np.array([point[:2] for point in prompt.points])
    return [[round(x), round(y)] for x, y in (own @ motion[:, :2].T + motion[:, 2]).tolist()]


# Rendering -----------------------------------------------------------------------------------------------------------


def _render(scene: _Scene) -> Iterator[tuple[UInt8Array, BoolArray]]:
    """Frame after frame: (H, W, 3) RGB, and (K, H, W) the part of each object that is seen."""
    noise = np.random.default_rng([_SEED, *scene.clip_id.encode()])
    pictures = [_picture(layer, noise) for layer in scene.layers]
    motions = [_motion(layer, scene.num_frames) for layer in scene.layers]
    for number in range(scene.num_frames):
        placed = [_place(*picture, motion[number]) for picture, motion in zip(pictures, motions)]
        rgb = _shrink(_compose(placed))
        coverage = np.stack([_shrink(alpha) for _, alpha in placed])
        seen = _seen(coverage)
        masks = [seen[row] >= 0.5 for row, layer in enumerate(scene.layers) if layer.object_id]
        yield _film(rgb, number / scene.num_frames, noise), np.stack(masks)


def _place(picture: UInt8Array, alpha: Float32Array, motion: Float64Array) -> tuple[UInt8Array, Float32Array]:
    """Draw one layer on the supersampled screen."""
    factor = _SUPERSAMPLING
    enlarged = motion * factor
    # The centre of screen pixel 0 lies between the first `factor` fine pixels.
    enlarged[:, 2] += (factor - 1) / 2
    size = (WIDTH * factor, HEIGHT * factor)
    colour = cv2.warpAffine(picture, enlarged, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    cover = cv2.warpAffine(alpha, enlarged, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cast(UInt8Array, colour), cast(Float32Array, cover)


def _compose(placed: list[tuple[UInt8Array, Float32Array]]) -> UInt8Array:
    screen = placed[0][0]
    for colour, cover in placed[1:]:
        screen = cast(UInt8Array, cv2.blendLinear(colour, screen, cover, 1 - cover))
    return screen


def _seen(coverage: Float32Array) -> Float32Array:
    """What remains of each layer's coverage (L, H, W) behind those in front of it."""
    free = np.cumprod(1 - coverage[:0:-1], axis=0)[::-1]
    return np.concatenate([coverage[:-1] * free, coverage[-1:]])


def _film(rgb: UInt8Array, moment: float, noise: np.random.Generator) -> UInt8Array:
    """What a camera adds: light that changes a little, and noise."""
    light = 1 + 0.06 * np.sin(2 * np.pi * moment)
    grain = noise.standard_normal(rgb.shape, dtype=np.float32) * _NOISE_LEVELS
    film: UInt8Array = np.clip(rgb * np.float32(light) + grain, 0, 255).astype(np.uint8)
    return film


def _shrink(fine: NDArray[_Number]) -> NDArray[_Number]:
    return cast(NDArray[_Number], cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def _motion(layer: _Layer, num_frames: int) -> Float64Array:
    """(T, 2, 3) affine matrices from the layer's picture to the screen."""
    x, y, degrees, scale = _smooth(layer.poses, num_frames).T
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    shift = np.stack([x, y], axis=-1) - linear @ _centre(layer)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _smooth(poses: tuple[_Pose, ...], num_frames: int) -> Float64Array:
    """(T, 4) x, y, degrees, scale: a cubic through the poses, with the slope of its neighbours at each."""
    times = np.array([pose.frame for pose in poses], dtype=float)
    values = np.array([[pose.x, pose.y, pose.degrees, pose.scale] for pose in poses])
    slopes = np.gradient(values, times, axis=0)
    frames = np.arange(num_frames)
    left = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(poses) - 2)
    span = (times[left + 1] - times[left])[:, None]
    u = (frames - times[left])[:, None] / span
    smooth: Float64Array = (
        (1 + 2 * u) * (1 - u) ** 2 * values[left]
        + u * (1 - u) ** 2 * span * slopes[left]
        + u**2 * (3 - 2 * u) * values[left + 1]
        + u**2 * (u - 1) * span * slopes[left + 1]
    )
    return smooth


def _centre(layer: _Layer) -> Float64Array:
    width, height = layer.size
    return np.array([(width - 1) / 2, (height - 1) / 2])


# Pictures ------------------------------------------------------------------------------------------------------------


def _picture(layer: _Layer, random: np.random.Generator) -> tuple[UInt8Array, Float32Array]:
    """(h, w, 3) RGB and (h, w) coverage in 0..1 of one layer."""
    width, height = layer.size
    texture = _texture(layer, random)
    if layer.shape == "plain":
        return texture, np.ones((height, width), np.float32)
    outline = _blob_outline(layer) if layer.shape == "blob" else _bar_outline(layer)
    return texture, _fill(outline, width, height)


def _texture(layer: _Layer, random: np.random.Generator) -> UInt8Array:
    """Patches of the layer's colours at three sizes with corners among them: something that can be tracked."""
    width, height = layer.size
    colours = np.array(layer.colours, dtype=np.float32)
    coarse = colours[_patches(random, width, height, layer.grain * 4, len(colours))]
    fine = colours[_patches(random, width, height, layer.grain, len(colours))]
    shade = cv2.resize(random.uniform(0.8, 1.2, (height // 3 + 1, width // 3 + 1)), (width, height))
    mixed = (0.5 * coarse + 0.5 * fine) * shade[:, :, None]
    return cast(UInt8Array, cv2.GaussianBlur(np.clip(mixed, 0, 255).astype(np.uint8), (0, 0), 0.7))


def _patches(random: np.random.Generator, width: int, height: int, size: int, count: int) -> Int64Array:
    """(h, w) numbers below `count`, in patches with curved borders of about `size` px."""
    votes = random.random((height // size + 3, width // size + 3, count)).astype(np.float32)
    smooth = cv2.resize(votes, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth[:height, :width].argmax(axis=2), dtype=np.int64)


def _blob_outline(layer: _Layer) -> Float64Array:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 0.8 + 0.13 * np.cos(layer.lobes * angle) + 0.05 * np.sin(2 * angle + 1)
    half = np.array(layer.size) / 2 - 1
    corners: Float64Array = half * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return _centre(layer) + corners


def _bar_outline(layer: _Layer) -> Float64Array:
    half = np.array(layer.size) / 2 - 2
    corners: Float64Array = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return _centre(layer) + corners


def _fill(outline: Float64Array, width: int, height: int, factor: int = 8) -> Float32Array:
    """Share of each pixel that a polygon covers."""
    canvas = np.zeros((height * factor, width * factor), np.uint8)
    corners = np.round((outline + 0.5) * factor - 0.5).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255)
    share = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(share / 255, dtype=np.float32)
