"""Options of a detector's training: settings, and arguments after ``--``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from gansynth.hosts.host import FrameworkOptions
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.yaml_text import parse_yaml

MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolo11n.yaml"}
MIRROR = "data"
"""Folder in the output with links to the user's images and labels, read by the detector."""
WEIGHTS = "detector"  # folder in the output for the detector's own files


class YoloSettings(FrameworkOptions):
    """Settings of ``--target yolo``."""

    detector: Literal["libreyolo", "ultralytics"] = Field(
        "libreyolo", description="which library trains: libreyolo (MIT) or ultralytics (AGPL-3.0)"
    )
    model: str | None = Field(
        None,
        description="model of the library: libreyolo has yolox-n (default), yolo9-t and so on; "
        "ultralytics a .yaml (yolo11n.yaml); or an existing .pt file: nothing is downloaded",
    )
    epochs: int = Field(100, ge=1, description="passes through the real images")
    imgsz: int = Field(
        640, ge=32, description="side in pixels to which images are resized, a multiple of 32"
    )
    batch: int = Field(16, ge=1, le=65536, description="images of a training step")
    workers: int = Field(
        2, ge=0, description="processes that load images; 0 loads in the training process"
    )
    cache: Literal["off", "ram"] = Field(
        "off", description="ram: keep decoded real images in memory"
    )


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Parse the detector's own ``KEY=VALUE`` options as YAML."""
    import yaml

    parsed: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageFault(
                f"-- {text}: expected options of the detector as KEY=VALUE, for example mosaic=0.5"
            )
        if key in parsed:
            raise UsageFault(f"-- {text}: {key} is given twice, expected once")
        try:
            parsed[key] = parse_yaml(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed
