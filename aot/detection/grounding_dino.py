"""Grounding DINO: boxes of what a text describes.

Source: Grounding DINO (arXiv:2303.05499). Code and weights of the authors are Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from aot.detection.base import Detections
from aot.detection.pretrained import EVERY_BOX, Loaded, Precision, PretrainedDetector, as_detections, with_scores_from
from aot.system.devices import DeviceOption
from aot.types import UInt8Array


class GroundingDinoDetector(PretrainedDetector):
    """Finds objects by the words of a sentence.

    The score of a box is that of the word that fits it best.

    Args:
        model: repository of the model on huggingface.co, of the kind grounding-dino or mm-grounding-dino.
        checkpoint: folder of the model; None: `<model>` in the folder of weights.
        min_score: the lowest score of a box that shows the object, 0..1.
        max_overlap: intersection over union, 0..1, above which two boxes show the same object; the better one is kept.
        precision: of the network; fp32 is exact, bf16 and fp16 are faster where the hardware supports them.
        device: auto selects CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the library `transformers` is not installed.
        CheckpointError: the model is missing, or of another kind.
    """

    option = "grounding_dino"
    title = "Grounding DINO"

    def __init__(
        self,
        model: str = "IDEA-Research/grounding-dino-tiny",
        checkpoint: Path | None = None,
        min_score: Annotated[float, Ge(0), Le(1)] = 0.35,
        max_overlap: Annotated[float, Ge(0), Le(1)] = 0.5,
        precision: Precision = "fp32",
        device: DeviceOption = "auto",
    ) -> None:
        super().__init__(model, checkpoint, min_score, max_overlap, precision, device)

    def _max_tokens(self, model: Any) -> int:
        # With the full stop, which ends a description.
        return int(model.config.max_text_len) - 1

    def _find(self, loaded: Loaded, rgb: UInt8Array, text: str, min_score: float) -> Detections:
        # Lower case with a full stop, as the network was trained.
        description = f"{text.strip().rstrip('.').lower()}."
        inputs = loaded.processor(images=rgb, text=description, return_tensors="pt").to(loaded.device)
        outputs = loaded.model(**inputs)
        (found,) = loaded.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=EVERY_BOX, text_threshold=1.0, target_sizes=[rgb.shape[:2]]
        )
        return with_scores_from(as_detections(found, rgb), min_score)
