"""SAM 3: masks of what a text describes.

Source: SAM 3 (arXiv:2511.16719). Code and weights of the authors have a licence of their own, the SAM License.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from aot.detection.base import Detections
from aot.detection.pretrained import EVERY_BOX, Loaded, Precision, PretrainedDetector, as_detections, with_scores_from
from aot.system.devices import DeviceOption
from aot.types import UInt8Array


class Sam3Detector(PretrainedDetector):
    """Finds objects by a short phrase, and gives their masks, which are prompts as they are.

    The score is the probability that the object fits the phrase and that the frame shows what it describes.

    Args:
        model: repository of the model on huggingface.co, of the kind sam3 or sam3_video.
        checkpoint: folder of the model; None: `<model>` in the folder of weights.
        masks: True: masks are the prompts; False: the boxes around them.
        min_score: the lowest score of a mask that shows the object, 0..1.
        max_overlap: intersection over union of the boxes, 0..1, above which two show the same object; the better one
            is kept.
        precision: of the network; fp32 is exact, bf16 and fp16 are faster where the hardware supports them.
        device: auto selects CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the library `transformers` is not installed.
        CheckpointError: the model is missing, or of another kind.
    """

    option = "sam3"
    title = "SAM 3"

    def __init__(
        self,
        model: str = "facebook/sam3",
        checkpoint: Path | None = None,
        masks: bool = True,
        min_score: Annotated[float, Ge(0), Le(1)] = 0.5,
        max_overlap: Annotated[float, Ge(0), Le(1)] = 0.5,
        precision: Precision = "fp32",
        device: DeviceOption = "auto",
    ) -> None:
        super().__init__(model, checkpoint, min_score, max_overlap, precision, device)
        self.masks = masks

    def _classes(self) -> tuple[Any, Any]:
        from transformers import Sam3Model, Sam3Processor

        return Sam3Model, Sam3Processor

    def _max_tokens(self, model: Any) -> int:
        return int(model.config.text_config.max_position_embeddings)

    def _find(self, loaded: Loaded, rgb: UInt8Array, text: str, min_score: float) -> Detections:
        inputs = loaded.processor(images=rgb, text=text, return_tensors="pt").to(loaded.device)
        outputs = loaded.model(**inputs)
        sizes = [rgb.shape[:2]]
        (every,) = loaded.processor.post_process_object_detection(outputs, threshold=EVERY_BOX, target_sizes=sizes)
        boxes = with_scores_from(as_detections(every, rgb), min_score)
        if not self.masks:
            return boxes
        # The processor leaves out scores that are equal to the threshold, and makes masks only of the others.
        below = float(np.nextafter(np.float32(min_score), np.float32(EVERY_BOX)))
        (found,) = loaded.processor.post_process_instance_segmentation(outputs, threshold=below, target_sizes=sizes)
        return replace(as_detections(found, rgb), best_score=boxes.best_score)
