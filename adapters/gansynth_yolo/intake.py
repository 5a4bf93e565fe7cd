"""Which samples fit the training images of a detector."""

from __future__ import annotations

from typing import ClassVar, Literal

from gansynth import CaseSource, Intake, Space, UsageFault
from gansynth_yolo.source import YoloSource


class YoloIntake(Intake):
    """Images with boxes, of any size: detectors resize every one."""

    needs: ClassVar[Literal["labels", "boxes"]] = "boxes"
    any_size = True
    must_match = ("channels", "box_classes")
    sample_size = (8, 8)

    def __init__(self, source: CaseSource, target: str, space: Space | None = None) -> None:
        if not isinstance(source, YoloSource):
            slices = "" if source.schema.axes == "HW" else "slices:"
            data = f"{source.request.kind}:{source.request.where}"
            raise UsageFault(
                "yolo.data-not-for-detectors",
                f"--data {data}: detectors train on YOLO and COCO data sets, expected "
                "yolo:data.yaml or coco:FOLDER; make one: gansynth import "
                f"{slices}{data} yolo:FOLDER --read boxes=yes, and fit the generator on it",
            )
        super().__init__(source, target, space)
