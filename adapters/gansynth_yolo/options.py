"""The ``--read`` keys of ``yolo:``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from gansynth.data.planes import PixelSpacing
from gansynth.data.read_options import ReadOptions, SplitsFile
from gansynth.data.subjects import compile_pattern
from gansynth.runtime.option_kinds import Size2
from gansynth.runtime.options import Needs


def _two_groups(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        groups = compile_pattern(value).groups
    except ValueError as error:
        raise ValueError(f"no regular expression: {error}") from error
    if groups < 2:
        raise ValueError(
            f"has {groups} group(s), expected two, of a volume and of a slice's number, "
            "for example (.*)_z([0-9]+)"
        )
    return value


class YoloOptions(ReadOptions):
    """Options for reading a YOLO data set."""

    needs: ClassVar[Needs] = {"least": "masks"}

    size: Size2 | None = Field(
        None,
        description="rows and columns, `128x128`, of the generator's arrays, which every image is "
        "resampled to; else the power of two from the training images' longer edge up, at most "
        "`256x256`",
    )
    fit: Literal["pad", "stretch"] = Field(
        "pad",
        description="`pad`: brought to `size` as a whole and undistorted, zeros around it; "
        "`stretch`: rows and columns each on their own",
    )
    classes: Literal["none", "boxes"] = Field(
        "none", description="`boxes`: an image is of the class of its largest box, or `background`"
    )
    missing: Literal["refuse", "background"] = Field(
        "refuse",
        description="an image without a label file; the detectors treat it as `background`, as "
        "with an empty file",
    )
    overshoot: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="share of width and height that boxes may reach beyond the image; they are "
        "clipped",
    )
    colour: Literal["stored", "grey"] = Field(
        "stored",
        description="`grey`: RGB images are read as grey, as they are where `data.yaml` says "
        "`channels: 1`",
    )
    volumes: Annotated[str, BeforeValidator(_two_groups)] | None = Field(
        None,
        description="regular expression whose two groups, found in a case's name without a "
        "leading `train/` or `val/`, are its volume and the number of its slice; without "
        "`--subjects`, a volume is a subject",
    )
    spacing: PixelSpacing = Field(
        (1.0, 1.0), description="size of the files' pixels in mm along y,x (one number for both)"
    )
    masks: bool = Field(
        False,
        description="`yes`: each image has a label map, a PNG of the same name with `/masks/` for "
        "the last `/images/` of its path. 0 is background, 1 the first class, 2 the second",
    )
    least: int = Field(
        1, ge=1, description="least pixels of a part of a sample's label map that gets a box"
    )
    splits: SplitsFile = None
    allow_outside: bool = Field(
        False, description="`yes`: paths and links may lead out of the folder of `data.yaml`"
    )
