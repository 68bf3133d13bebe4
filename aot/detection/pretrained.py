"""What detectors that the library `transformers` runs have in common: their model, its device and its precision.

The model is loaded from its folder only: nothing is requested from a network, and no code of a repository is executed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from aot.checkpoints import Weights
from aot.checkpoints.models import identify_model, require_model
from aot.detection.base import Detections, inside_frame
from aot.errors import CheckpointError, ConfigError, PromptError
from aot.system.devices import DeviceOption, choose_device, describe_device, release_memory, tf32, torch_memory_errors
from aot.types import UInt8Array

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]

# Below every score.
EVERY_BOX = -1.0


@dataclass(frozen=True)
class Loaded:
    """A model and what prepares its inputs, on their device."""

    model: Any
    processor: Any
    device: torch.device


class PretrainedDetector(ABC):
    """A detector whose model is in the format of `transformers`.

    Args:
        model: repository of the model on huggingface.co.
        checkpoint: folder of the model; None: where the download command puts it.
        min_score: the lowest score of a box that shows the object.
        max_overlap: intersection over union above which two boxes show the same object.
        precision: of the network.
        device: where it runs.

    Raises:
        ConfigError: the library is not installed.
        CheckpointError: the model is missing, or of another kind.
    """

    option: ClassVar[str]
    """The name of the option."""
    title: ClassVar[str]
    """The name of the network in messages."""

    def __init__(
        self,
        model: str,
        checkpoint: Path | None,
        min_score: float,
        max_overlap: float,
        precision: Precision,
        device: DeviceOption,
    ) -> None:
        if find_spec("transformers") is None:
            raise ConfigError(
                f"detector={self.option} needs the library transformers: pip install 'auto-objects-tracker[detect]'"
            )
        self.folder = require_model(model, checkpoint, detector=self.option)
        self.model, self.checkpoint = model, checkpoint
        self.min_score, self.max_overlap = min_score, max_overlap
        self.precision, self.device = precision, device
        self._loaded: Loaded | None = None

    @property
    def model_name(self) -> str:
        return self.model if self.checkpoint is None else self.checkpoint.name

    @property
    def weights(self) -> tuple[Weights, ...]:
        return identify_model(self.folder)

    @property
    def device_name(self) -> str:
        return describe_device(choose_device(self.device, option="detector.device"))

    @property
    def precision_name(self) -> str:
        return self.precision

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        """Find the objects that a text describes; see `aot.detection.base.Detector`.

        Raises:
            CheckpointError: the model cannot be loaded.
            PromptError: the text is longer than the model can read.
            OutOfMemory: memory ran out.
        """
        import torch

        with torch_memory_errors(self.title, "use detector.device=cpu or a smaller model"):
            loaded = self._load()
            self._check_length(loaded, text)
            # Exact products in fp32; with the other precisions, rounded ones cost nothing.
            with torch.inference_mode(), tf32(self.precision != "fp32"), self._autocast(loaded.device):
                return self._find(loaded, np.array(rgb), text, min_score)

    def release(self) -> None:
        """Free the memory of the model, which is loaded again on its next use."""
        self._loaded = None
        release_memory()

    def _classes(self) -> tuple[Any, Any]:
        """The library's classes of the model and of its processor."""
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        return AutoModelForZeroShotObjectDetection, AutoProcessor

    @abstractmethod
    def _max_tokens(self, model: Any) -> int:
        """The length of the longest text that a model reads, with its first and last token."""

    @abstractmethod
    def _find(self, loaded: Loaded, rgb: UInt8Array, text: str, min_score: float) -> Detections:
        """As `detect`."""

    def _check_length(self, loaded: Loaded, text: str) -> None:
        num_tokens, most = len(loaded.processor.tokenizer(text)["input_ids"]), self._max_tokens(loaded.model)
        if num_tokens > most:
            raise PromptError(
                f'"{text}" has {num_tokens} tokens, but {self.title} reads at most {most}; describe the object in '
                f"fewer words"
            )

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _load(self) -> Loaded:
        if self._loaded is None:
            device = choose_device(self.device, option="detector.device")
            with _quiet(), self._loading_errors():
                model_class, processor_class = self._classes()
                # The processor first: it is small, and most likely to lack a file.
                processor = processor_class.from_pretrained(self.folder, local_files_only=True)
                model, report = model_class.from_pretrained(
                    self.folder,
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
            if wrong:
                raise CheckpointError(
                    f"{self.folder} does not hold the weights of {self.title}: {len(wrong)} are missing or of another "
                    f"shape, such as {wrong[0]}; download the model again"
                )
            self._loaded = Loaded(model.float().to(device).eval(), processor, device)
        return self._loaded

    @contextmanager
    def _loading_errors(self) -> Iterator[None]:
        try:
            yield
        except ImportError as exc:
            raise ConfigError(
                f"detector={self.option}: the installed library transformers cannot run {self.title}: "
                f"{_first_line(exc)}; pip install --upgrade 'auto-objects-tracker[detect]'"
            ) from exc
        except MemoryError:
            raise
        except Exception as exc:
            raise CheckpointError(
                f"{self.folder} cannot be loaded as {self.title}: {_first_line(exc)}; check it with `python -m "
                f"aot.checkpoints verify`, or delete it and download it again"
            ) from exc


def as_detections(found: Any, rgb: UInt8Array) -> Detections:
    """The boxes, and masks if there are any, of a processor's results that are within the frame.

    Args:
        found: "boxes" (N, 4) px, "scores" (N,), and "masks" (N, H, W) or none, as tensors.
        rgb: the frame.
    """
    height, width = rgb.shape[:2]
    masks = found.get("masks")
    boxes = found["boxes"].float().cpu().numpy().reshape(-1, 4)
    scores = found["scores"].float().cpu().numpy()
    every = Detections(boxes, scores, None if masks is None else masks.bool().cpu().numpy().reshape(-1, height, width))
    return inside_frame(every, width, height)


def with_scores_from(every: Detections, min_score: float) -> Detections:
    """Leave out boxes with lower scores, of which the best one stays known."""
    good = every.take(np.flatnonzero(every.scores >= np.float32(min_score)))
    return replace(good, best_score=float(every.scores.max()) if len(every) else None)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and warnings, which are about training."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
