"""The scenes of the demo, described as data.

Every scene is a stack of flat textured images (layers). Each layer moves by an affine motion, given by its poses on a
few frames. Positions are pixels with centres at integers, in a layer's own image as well as in the frame.

The values, field names included, are part of the hash in the demo folder's version.json: after a change, existing demo
folders are rendered again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WIDTH, HEIGHT, FPS = 320, 240, 25

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """Place of a layer on one frame; the motion between poses is a smooth curve."""

    frame: int
    x: float
    """Horizontal position of the layer's centre, in px."""
    y: float
    """Vertical position of the layer's centre, in px."""
    degrees: float = 0.0
    """Rotation, clockwise as seen in the frame."""
    scale: float = 1.0
    """Size in the frame relative to the layer's own image."""
    squeeze: float = 1.0
    """Factor for the width of the layer's own image, before it is rotated: a face that turns away becomes narrower."""


@dataclass(frozen=True)
class Layer:
    """One textured surface: an object, an occluder or the background."""

    poses: tuple[Pose, ...]
    """At least two, in order of their frames."""
    size: tuple[int, int]
    """Width and height of the layer's own image in px."""
    colours: tuple[Colour, ...]
    """RGB colours of the texture's patches."""
    shape: str
    """`blob`, `bar`, or `plain` (fills the whole image)."""
    lobes: int = 3
    """Number of bumps on the outline of a blob."""
    grain: int = 7
    """Size of the smallest patches of the texture in px."""
    object_id: int = 0
    """At least 1 for an object that is segmented and tracked; 0 for background and occluders. Several layers with the
    same id are the faces of one object."""


@dataclass(frozen=True)
class ScenePrompt:
    """The prompts that the manifest gives for one object; boxes and masks are computed from the ground truth."""

    object_id: int
    name: str
    frame: int
    box: bool = False
    mask: bool = False
    points: tuple[tuple[float, float, int], ...] = ()
    """(x, y, label): offset from the layer's centre in units of its half width and half height; label 1: object."""


@dataclass(frozen=True)
class Scene:
    """One clip."""

    clip_id: str
    comment: str
    """Description of the scene, written to the manifest."""
    num_frames: int
    layers: tuple[Layer, ...]
    """Back to front; the first is the background."""
    prompts: tuple[ScenePrompt, ...]


_RED = ((196, 52, 40), (236, 132, 60), (120, 24, 32), (112, 118, 70))
_YELLOW = ((226, 182, 40), (250, 228, 120), (150, 96, 20), (110, 146, 140))
_BLUE = ((36, 84, 190), (110, 170, 240), (20, 32, 96), (196, 186, 160))
_PINK = ((206, 60, 140), (246, 160, 200), (110, 20, 84), (250, 226, 190))
_ORANGE = ((232, 120, 30), (250, 190, 90), (140, 56, 16), (90, 40, 60))
_STEEL = ((74, 80, 92), (150, 160, 176), (40, 44, 52), (200, 206, 214))
# The last colour of each background is close to a colour of the object in front of it, so that an object cannot be
# segmented by colour only.
_FOREST = ((52, 92, 58), (104, 134, 82), (34, 56, 52), (140, 140, 110), (70, 110, 60), (166, 86, 50))
_SHORE = ((44, 98, 112), (86, 146, 150), (30, 58, 82), (150, 170, 160), (60, 120, 140), (206, 180, 96))
_SAND = ((176, 156, 122), (206, 188, 152), (130, 112, 92), (112, 122, 124), (190, 170, 130), (84, 116, 176))
_STONE = ((120, 118, 116), (160, 156, 150), (82, 84, 92), (186, 180, 164), (190, 150, 70), (170, 90, 136))
_SEA = ((44, 98, 112), (86, 146, 150), (30, 58, 82), (150, 170, 160), (60, 120, 140), (170, 106, 60))


def _background(colours: tuple[Colour, ...], *poses: Pose) -> Layer:
    return Layer(poses=poses, size=(520, 420), colours=colours, shape="plain", grain=12)


def _turning_faces(
    centre: Pose, half_width: float, degrees: tuple[float, float], num_frames: int, last_turning: int
) -> tuple[tuple[Pose, ...], tuple[Pose, ...]]:
    """Poses of the front and the right face of an upright square box that turns to the left.

    Args:
        centre: of the box.
        half_width: of a face, in px.
        degrees: first and last angle of the front face to the image plane, in 0..90 and without its ends.
        num_frames: of the clip.
        last_turning: frame on which the turn ends.
    """
    faces: tuple[list[Pose], list[Pose]] = [], []
    for frame in range(num_frames):
        first, last = degrees
        angle = math.radians(first + (last - first) * min(1, frame / last_turning))
        sine, cosine = math.sin(angle), math.cos(angle)
        for poses, shift, squeeze in zip(faces, (-sine, cosine), (cosine, sine)):
            poses.append(Pose(frame, centre.x + half_width * shift, centre.y, squeeze=squeeze))
    return tuple(faces[0]), tuple(faces[1])


SCENES = (
    Scene(
        clip_id="spin",
        comment="turns by 200 degrees while it drifts; prompted by a box",
        num_frames=48,
        layers=(
            _background(_FOREST, Pose(0, 150, 124), Pose(47, 178, 112, 3)),
            Layer(
                poses=(Pose(0, 112, 132, -20), Pose(24, 160, 104, 90, 1.05), Pose(47, 214, 126, 180)),
                size=(124, 92),
                colours=_RED,
                shape="blob",
                lobes=3,
                object_id=1,
            ),
        ),
        prompts=(ScenePrompt(1, "red stone", 0, box=True),),
    ),
    Scene(
        clip_id="zoom",
        comment="comes closer, from 0.55 to 1.45 of its size; prompted by two points on it and one beside it",
        num_frames=50,
        layers=(
            _background(_SHORE, Pose(0, 160, 120, 0, 0.9), Pose(49, 150, 126, -4, 1.08)),
            Layer(
                poses=(Pose(0, 96, 92, 8, 0.55), Pose(28, 150, 112, -10, 0.95), Pose(49, 188, 132, 6, 1.45)),
                size=(112, 104),
                colours=_YELLOW,
                shape="blob",
                lobes=5,
                object_id=1,
            ),
        ),
        prompts=(ScenePrompt(1, "yellow star", 0, points=((-0.25, -0.1, 1), (0.3, 0.2, 1), (1.35, -0.6, 0))),),
    ),
    Scene(
        clip_id="hide",
        comment="passes behind a post that hides more than half of it at once; prompted by a box and two points",
        num_frames=60,
        layers=(
            _background(_SAND, Pose(0, 172, 118), Pose(59, 146, 124)),
            Layer(
                poses=(Pose(0, 70, 116, 0), Pose(30, 166, 128, 12), Pose(59, 262, 112, 24)),
                size=(88, 88),
                colours=_BLUE,
                shape="blob",
                lobes=4,
                grain=6,
                object_id=1,
            ),
            Layer(
                poses=(Pose(0, 214, 8, 4), Pose(59, 126, 12, -4)),
                size=(60, 260),
                colours=_STEEL,
                shape="bar",
                grain=9,
            ),
        ),
        prompts=(ScenePrompt(1, "blue clover", 0, box=True, points=((-0.2, 0.2, 1), (0.3, -0.3, 1))),),
    ),
    Scene(
        clip_id="pair",
        comment="two objects, the second crosses in front of the first; prompted by a mask and by a box",
        num_frames=50,
        layers=(
            _background(_STONE, Pose(0, 156, 116, 2), Pose(49, 166, 126, -2)),
            Layer(
                poses=(Pose(0, 92, 88, 0), Pose(49, 150, 102, -35, 1.15)),
                size=(108, 88),
                colours=_PINK,
                shape="blob",
                lobes=3,
                object_id=1,
            ),
            Layer(
                poses=(Pose(0, 248, 176, 10, 0.95), Pose(26, 168, 140, 55), Pose(49, 70, 168, 110)),
                size=(76, 68),
                colours=_YELLOW,
                shape="blob",
                lobes=4,
                grain=6,
                object_id=2,
            ),
        ),
        prompts=(ScenePrompt(1, "pink leaf", 0, mask=True), ScenePrompt(2, "yellow flower", 0, box=True)),
    ),
    Scene(
        clip_id="late",
        comment="prompted by a mask on frame 24 of 48, with the object in sight before and after it",
        num_frames=48,
        layers=(
            _background(_SEA, Pose(0, 170, 128, -2), Pose(47, 148, 114, 2)),
            Layer(
                poses=(Pose(0, 226, 84, 40, 0.8), Pose(24, 150, 132, 0, 1.1), Pose(47, 92, 112, -50, 0.9)),
                size=(104, 92),
                colours=_ORANGE,
                shape="blob",
                lobes=5,
                object_id=1,
            ),
        ),
        prompts=(ScenePrompt(1, "orange flower", 24, mask=True),),
    ),
)

_FRONT, _SIDE = _turning_faces(Pose(0, 160, 124), 52, (4, 84), 56, 36)

MORE_SCENES = (
    Scene(
        clip_id="leave",
        comment="leaves the frame on the left and comes back from below, turned by 150 degrees; prompted by a mask",
        num_frames=72,
        layers=(
            _background(_SHORE, Pose(0, 164, 118), Pose(71, 150, 124)),
            Layer(
                poses=(
                    Pose(0, 150, 120, 0),
                    Pose(20, -80, 112, -20),
                    Pose(25, -80, 330, 60),
                    Pose(30, 150, 330, 120),
                    Pose(48, 160, 140, 150),
                    Pose(71, 190, 110, 150),
                ),
                size=(104, 96),
                colours=_RED,
                shape="blob",
                lobes=4,
                object_id=1,
            ),
        ),
        prompts=(ScenePrompt(1, "red clover", 0, mask=True),),
    ),
    Scene(
        clip_id="turn",
        comment="a box that turns its right side to the camera; prompted by a mask",
        num_frames=56,
        layers=(
            _background(_SAND, Pose(0, 168, 118), Pose(55, 152, 124)),
            Layer(poses=_SIDE, size=(104, 116), colours=_PINK, shape="plain", object_id=1),
            Layer(poses=_FRONT, size=(104, 116), colours=_BLUE, shape="plain", object_id=1),
        ),
        prompts=(ScenePrompt(1, "box", 0, mask=True),),
    ),
)
"""Rendered on request only (`dataset.scenes`): objects whose first points do not last."""
