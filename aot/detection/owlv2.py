"""OWLv2: boxes of what a text describes.

Source: OWLv2 (arXiv:2306.09683). Code and weights of the authors are Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from aot.detection.base import Detections
from aot.detection.pretrained import EVERY_BOX, Loaded, Precision, PretrainedDetector, as_detections, with_scores_from
from aot.system.devices import DeviceOption
from aot.types import UInt8Array


class Owlv2Detector(PretrainedDetector):
    """Finds objects by a short description, of up to 14 words or parts of words.

    Args:
        model: repository of the model on huggingface.co, of the kind owlv2 or owlvit.
        checkpoint: folder of the model; None: `<model>` in the folder of weights.
        min_score: the lowest score of a box that shows the object, 0..1.
        max_overlap: intersection over union, 0..1, above which two boxes show the same object; the better one is kept.
        precision: of the network; fp32 is exact, bf16 and fp16 are faster where the hardware supports them.
        device: auto selects CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the library `transformers` is not installed.
        CheckpointError: the model is missing, or of another kind.
    """

    option = "owlv2"
    title = "OWLv2"

    def __init__(
        self,
        model: str = "google/owlv2-base-patch16-ensemble",
        checkpoint: Path | None = None,
        min_score: Annotated[float, Ge(0), Le(1)] = 0.2,
        max_overlap: Annotated[float, Ge(0), Le(1)] = 0.5,
        precision: Precision = "fp32",
        device: DeviceOption = "auto",
    ) -> None:
        super().__init__(model, checkpoint, min_score, max_overlap, precision, device)

    def _max_tokens(self, model: Any) -> int:
        return int(model.config.text_config.max_position_embeddings)

    def _find(self, loaded: Loaded, rgb: UInt8Array, text: str, min_score: float) -> Detections:
        inputs = loaded.processor(images=rgb, text=[[text]], return_tensors="pt").to(loaded.device)
        outputs = loaded.model(**inputs)
        (found,) = loaded.processor.post_process_grounded_object_detection(
            outputs, threshold=EVERY_BOX, target_sizes=[rgb.shape[:2]]
        )
        return with_scores_from(as_detections(found, rgb), min_score)
