"""SAM 2 with compiled parts: which parts, the same masks, and the folder that keeps what was compiled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aot.segmentation.sam2 import Sam2Segmenter
from aot.system.compilation import CACHE_VARIABLE
from aot.types import Prompt
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import save_random_weights
from tests.segmentation.sam2_scenarios import Recorded, assert_same, raising, square
from tests.synthetic import moving_square

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = (1, 2, 3)
"""Numbers of objects for which a model is compiled."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that amplify rounding errors less than those of other tests: compiling changes the order of sums."""
    return save_random_weights(tmp_path_factory.mktemp("weights") / "mild.pt", scale=1.5)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of compiled code."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "compiled"))
    return tmp_path / "compiled"


def prompts(num_objects: int) -> list[Prompt]:
    return [Prompt(n, 0, box=square(n)) for n in range(1, num_objects + 1)]


def test_all_parts_are_compiled_but_the_heads_on_rows_with_a_prompt(
    weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled, without the time that it takes."""
    used: list[str] = []
    options: dict[str, dict[str, Any]] = {}

    def compiled(function: Any, **chosen: Any) -> Any:
        name = f"{type(function.__self__).__name__}.{function.__name__}"
        options[name] = chosen

        def run(*arguments: Any, **named: Any) -> Any:
            used.append(name)
            return function(*arguments, **named)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    segmenter = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128, batch_objects=True, compile=True)
    encoder, attention, memory = (f"{part}.forward" for part in ("ImageEncoder", "MemoryAttention", "MemoryEncoder"))
    heads = "CompiledPredictor._forward_sam_heads"
    list(segmenter.segment(ArraySource(moving_square(2)), prompts(3), on_object_error=raising))
    assert {name: chosen.pop("dynamic") for name, chosen in options.items()} == {
        encoder: False, attention: True, memory: False, heads: False
    }  # fmt: skip
    assert all(chosen == {"mode": None, "fullgraph": True} for chosen in options.values())
    # The prompts of three objects, then one row for two objects and for one: a power of two each.
    assert used == [encoder, memory, memory, memory, encoder, *[attention, heads, memory] * 2]


@pytest.mark.parametrize("chosen", [None, "/elsewhere"])
def test_compiled_code_is_kept_where_all_tasks_see_it(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new process: when it is imported, PyTorch's compiler sets the variable to the folder for temporary files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    if chosen:
        monkeypatch.setenv(CACHE_VARIABLE, chosen)
    code = "from aot.system.compilation import *; print(share_compiled_code(), os.environ[CACHE_VARIABLE])"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == [chosen or str(tmp_path / "aot" / "compiled")] * 2


PROGRAM = """
import json, sys, torch
from pathlib import Path
from tests.fakes import ArraySource
from tests.segmentation.test_sam2_compiled import SIZES, Sam2Segmenter, moving_square, prompts, raising
torch.set_num_threads(1)
segmenter = Sam2Segmenter(size="tiny", checkpoint=Path(sys.argv[1]), image_size=128, batch_objects=True, compile=True)
for num_objects in SIZES:
    list(segmenter.segment(ArraySource(moving_square(4)), prompts(num_objects), on_object_error=raising))
print(json.dumps(torch._dynamo.utils.counters["inductor"]))
"""


@pytest.mark.long
def test_compiled_models_give_the_same_masks_and_are_compiled_once_for_all_processes(
    weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick counterpart: `test_all_parts_are_compiled_but_the_heads_on_rows_with_a_prompt`."""
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(weights)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        counts.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = counts
    # An encoder; heads and memory encoders for one and for two objects; attention to one and to several memories too.
    assert first["fxgraph_cache_miss"] == 1 + 2 + 2 + 4
    assert second.get("fxgraph_cache_miss", 0) == 0
    assert second["fxgraph_cache_hit"] == first["fxgraph_cache_miss"]

    usual, compiled = (
        Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128, batch_objects=True, compile=chosen)
        for chosen in (False, True)
    )
    for num_objects in SIZES:
        rgb = moving_square(4)
        expected = Recorded(usual, rgb, prompts(num_objects), monkeypatch)
        found = Recorded(compiled, rgb, prompts(num_objects), monkeypatch)
        assert_same(found, expected.logits, expected.scores, has_same_masks=False)
