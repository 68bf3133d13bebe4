"""Valid inputs of every fuzz target, from which the search starts."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from aot.images.masks import encode_rle
from aot.lifetimes import Lifetimes
from aot.types import Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.writing.hdf5 import new_clip_file
from tests.synthetic import moving_square, write_video

MANIFEST = b"""\
clips:
  teapot:
    objects:
      - id: 1
        name: teapot
        frame: 0
        box: [10, 8, 22, 20]
        points: [[12, 18], [15, 12.5]]
        labels: [1, 0]
      - {id: 2, frame: 3, mask: masks/teapot_2.png}
      - {id: 1, frame: 5, points: [[20, 12]], labels: [0]}
  day1/*:
    objects:
      - {id: 1, box: [5, 4, 16, 12], query_points: [[0, 6, 5], [2, 7.5, 5]]}
"""

OVERRIDES = (
    b"dataset=demo\nframe_interval=2\nsegmenter=none\n",
    b"dataset=video\ndataset.path='a b=c.mp4'\ndataset.box=[1,2,30,40]\ndataset.points=[[3,4]]\ndataset.labels=[1]\n",
    b"dataset=videos\ndataset.root=${oc.env:HOME}\nretry=[oom,decode]\n",
    b'-m\ndataset=demo\nframe_interval=1,2,4\ndataset.include=["day1/*"]\n',
)


LEROBOT_INFO = json.dumps({
    "codebase_version": "v2.1", "fps": 10, "chunks_size": 1000, "total_episodes": 2,
    "features": {"top": {"dtype": "video"}},
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}).encode()  # fmt: skip
LEROBOT_EPISODES = b'{"episode_index": 0, "length": 5}\n{"episode_index": 1, "length": 7}\n'


@cache
def palette_png() -> bytes:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3, mode="P")
    image.putpalette(range(9))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def result_file(path: Path) -> Path:
    """Write a small complete result."""
    index = np.array([0, 3, 6, 9], dtype=np.int64)
    clip = Clip(
        "teapot", Path("teapot.mp4"), (Prompt(1, 0, "teapot", box=(0, 0, 4, 4)), Prompt(2, 3, box=(1, 1, 3, 3)))
    )
    shape = (4, 5)
    tracks = Tracks(
        xy=np.zeros((*shape, 2), np.float32),
        visible=np.ones(shape, np.bool_),
        visibility=np.ones(shape, np.float32),
        confidence=np.ones(shape, np.float32),
    )
    queries = QueryPoints(np.zeros((5, 3), np.float32), np.ones(5, np.int32))
    texts = "clip_id source source_sha256 config_yaml config_hash versions device attempts seconds created".split()
    numbers = "width height fps num_source_frames frame_interval_requested frame_interval peak_memory_bytes".split()
    attributes = dict.fromkeys(texts, "") | dict.fromkeys(numbers, 3)
    attributes |= {"clip_id": "teapot", "width": 8, "height": 6, "num_source_frames": 10}
    masks = np.ones((4, 2, 6, 8), np.bool_)
    block = MaskBlock(index, np.array([1, 2], np.int32), masks, np.ones((4, 2), np.float32))
    made = {"index": index, "time": index / 10, "mask_index": index, "height": 6, "width": 8}
    with new_clip_file(path, clip, **made) as writer:  # type: ignore[arg-type]
        writer.write_masks(block)
        life = Lifetimes.unlimited(tracks.visible, index)
        writer.write_tracks(tracks, queries, tracks.visible, life, np.ones((4, 2)))
        writer.write_provenance(attributes, {})
    return path


def seeds(name: str) -> Sequence[bytes]:
    """Valid inputs of a target to start from."""
    if name == "manifest":
        as_json = json.dumps({"clips": {"teapot": {"objects": [{"id": 1, "box": [1, 2, 3, 4]}]}}}).encode()
        return [MANIFEST, as_json]
    if name == "overrides":
        return OVERRIDES
    if name == "pickled":
        return _pickles()
    if name == "tree":
        return _tree_files()
    if name == "imported":
        return _boxes()
    with tempfile.TemporaryDirectory() as folder:
        if name == "results":
            return [result_file(Path(folder) / "clip.h5").read_bytes()]
        return [write_video(Path(folder) / "clip.mp4", moving_square(8)).read_bytes()]


def _pickles() -> list[bytes]:
    video = moving_square(3, width=64)[:, ::8, ::8]
    points = np.full((2, 3, 2), 0.5)
    example = {"video": video, "points": points, "occluded": np.zeros((2, 3), np.bool_)}
    stream = io.BytesIO()
    Image.fromarray(video[0]).save(stream, "JPEG")
    coded = example | {"video": [stream.getvalue()] * 3}
    return [
        pickle.dumps(content, protocol=protocol)
        for content in ({"goat": example, "../sheep": example}, [coded, coded])
        for protocol in (0, 2, 4)
    ]


def _tree_files() -> list[bytes]:
    mask = encode_rle(np.eye(6, 8, dtype=np.bool_))
    entry = {"size": [6, 8], "counts": mask.counts}
    sa_v = {
        "video_id": "sav_1", "video_frame_count": 9.0, "video_height": 6.0, "video_width": 8.0, "masklet_id": [0, 1],
        "masklet_num": 2, "masklet": [[entry, entry], [entry, entry]],
    }  # fmt: skip
    objects = {"1": {"category": "cup", "frames": ["00000", "00001"]}, "2": {"category": "hand", "frames": ["00001"]}}
    meta = {"videos": {"two": {"objects": objects}, "one": {"objects": objects}}}
    return [
        b"S" + json.dumps(sa_v).encode(), b"Ltwo\none\n\n", b"P" + palette_png(), b"M" + json.dumps(meta).encode(),
        b"I" + LEROBOT_INFO, b"E" + LEROBOT_EPISODES,
    ]  # fmt: skip


def _boxes() -> list[bytes]:
    images = [{"id": 1, "file_name": "day1/ep_3/00004.jpg", "width": 8, "height": 6}]
    item = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 3], "track_id": 7, "score": 0.5}
    content = {"images": images, "categories": [{"id": 1, "name": "mug"}]}
    outline = item | {"segmentation": [[1, 1, 5, 1, 5, 4]]}
    mask = encode_rle(np.eye(6, 8, dtype=np.bool_))
    packed = item | {"segmentation": {"size": [6, 8], "counts": mask.counts}}
    return [
        json.dumps(content | {"annotations": [item]}).encode(),
        json.dumps(content | {"annotations": [outline, packed]}).encode(),
        b"1,1,10,20,50,60,1,1,1\n2,1,11,20,50,60,1,1,1\n2,2,1.5,2,5,6,1\n",
    ]
