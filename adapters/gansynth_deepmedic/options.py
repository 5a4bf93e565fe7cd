"""How ``deepmedic:`` is read: its ``--read`` keys."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from gansynth.data.reading import (
    OF_BOXES,
    Frame,
    LabelNames,
    LeastVoxels,
    Modalities,
    OfLabels,
    ReadOptions,
    Resampling,
    Spacing,
    VolumeOptions,
    Whole,
    Window,
    Words,
    check_whole,
)
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import Size3
from gansynth.runtime.options import Needs
from gansynth_deepmedic.configs import TrainConfig


def _native(value: object) -> object:
    return "native" if value is None else value


class DeepMedicOptions(ReadOptions):
    """How the cases of a DeepMedic configuration are read."""

    needs: ClassVar[Needs] = {**OF_BOXES, "resampling": "whole"}

    model: str | None = Field(
        None,
        description="`modelConfig.cfg`: its number of classes says which labels there are, its "
        "number of channels is compared, and `gansynth check` looks whether segments fit; else "
        "labels are 0 to the largest in the training cases",
    )
    channels: Words | None = Field(
        None,
        description="names of the channels, in the order of `channelsTraining`; else what tells "
        "the list files' names apart, or the csv's `channel_NAME`",
    )
    labels: LabelNames | None = Field(None, description="NAME:NUMBER,... of the labels")
    modality: Modalities | None = Field(
        None,
        description="`none` (as stored), `mr` (z-score over the case's nonzero voxels) or `ct` "
        "(clip, then z-score, by the training cases' foreground); one for all channels or one for "
        "each; `mr` for channels that DeepMedic normalises itself (`norm_zscore_prms`), else "
        "`none`: DeepMedic expects normalised images",
    )
    window: Window | None = Field(
        None,
        description="LOW:HIGH that CT channels are clipped to, in HU; else the 0.5 and 99.5 "
        "percentiles of the training cases' foreground",
    )
    spacing: Annotated[Spacing, BeforeValidator(_native)] = Field(
        "native",
        description="`native`: voxels stay as they are, as DeepMedic takes them; voxel size in mm "
        "along z,y,x (one number for all three) to resample to, for a generator that is not to go "
        "back into DeepMedic",
    )
    size: Size3 | None = Field(
        None,
        description="voxels along z,y,x (one number for all three) of the crops a generator works "
        "on; else the training cases' median, at most 128, in eights",
    )
    frame: Frame = None
    whole: Whole = None
    resampling: Resampling = "linear"
    boxes: OfLabels = None
    least: LeastVoxels = 1

    @model_validator(mode="after")
    def _crops_or_whole(self) -> Self:
        check_whole(self.size, self.frame, self.whole)
        return self

    def volumes(self, config: TrainConfig) -> VolumeOptions:
        """The same as options of any volumes.

        Raises:
            UsageFault: as many names as channels are expected.
        """
        count = len(config.channels)
        if self.channels is not None and len(set(self.channels)) != count:
            raise UsageFault(
                f"--read channels={','.join(self.channels)}: {len(self.channels)} name(s), but "
                f"{config.path} lists {count} channel(s) ({', '.join(config.channels)}); expected "
                "a name for each, no two alike"
            )
        modality = self.modality
        if modality is None:
            modality = tuple("mr" if own else "none" for own in config.normalised)
        return VolumeOptions(
            channels=self.channels,
            labels=self.labels,
            modality=modality,
            window=self.window,
            spacing=self.spacing,
            size=self.size,
            frame=self.frame,
            whole=self.whole,
            resampling=self.resampling,
            allow_absolute=True,
            boxes=self.boxes,
            least=self.least,
        )
