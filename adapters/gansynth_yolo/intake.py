"""Which samples fit the training images of a detector."""

from __future__ import annotations

from typing import ClassVar, Literal

from gansynth import CaseSource, Intake, Space, UsageFault
from gansynth_yolo.import_slices import boxed_import
from gansynth_yolo.source import YoloSource


class YoloIntake(Intake):
    """Images with boxes, of any size: detectors resize every one."""

    needs: ClassVar[Literal["labels", "boxes"]] = "boxes"
    any_size = True
    must_match = ("channels", "box_classes")
    sample_size = (8, 8)

    def __init__(self, source: CaseSource, target: str, space: Space | None = None) -> None:
        if not isinstance(source, YoloSource):
            asked = source.request
            raise UsageFault(
                "yolo.data-not-for-detectors",
                f"--data {asked.kind}:{asked.where}: detectors train on YOLO and COCO data sets, "
                "expected yolo:data.yaml or coco:FOLDER; make one: "
                f"{boxed_import(source, 'yolo:NEW')}, and fit the generator on yolo:NEW/data.yaml",
            )
        super().__init__(source, target, space)
