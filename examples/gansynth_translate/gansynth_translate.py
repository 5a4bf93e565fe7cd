"""``translate``: labelled cases in the look of another site's unlabelled scans, labels kept.

A look is local: grey values, sharpness and grain. So the network sees two voxels each way, which
moves no anatomy, and no second network has to lead back (Zhu et al. 2017, arXiv:1703.10593).
Patches of its images are to be distributed as those of scans, by sliced Wasserstein distances
(Heitz et al. 2021, arXiv:2006.07229), which need fewer steps than a discriminator. A segmenter must
find the labels, and a sample is rejected whose labelled things hardly stand out any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import binary_dilation
from torch import Tensor, nn
from torch.nn import functional

import gansynth
from gansynth import OUTSIDE, Capabilities, Case, Condition, Generator, GeneratorOptions, hookimpl

gansynth_api = 4
FEWEST = 4  # scans that show a look
RIM = 3  # voxels around a labelled thing that it stands out from
PATCH, SCALES, SLICES = 5, 3, 16  # voxels of an edge; halvings, with none; directions a step
SEGMENTER = 8  # its features at the finest level
VISIBLE = 0.5  # deviations of an image; what stands out by less need not be seen afterwards


class TranslateOptions(GeneratorOptions):
    """Keys of ``--set``."""

    width: int = Field(24, ge=4, description="features of the translation")
    identity: float = Field(
        0.1, ge=0, description="weight: scans of the other site stay as they are"
    )
    head: float = Field(0.2, ge=0, description="weight: labels are found in translated images")
    least_contrast: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a sample is rejected if a labelled thing keeps less of its contrast; 0: none",
    )
    rate: float = Field(5e-3, gt=0, description="learning rate")


class Translate(Generator):
    """A small local network, and a segmenter of what it translates."""

    name = "translate"
    Options = TranslateOptions
    options: TranslateOptions
    capabilities = Capabilities(
        takes=frozenset({"labels", "image"}),
        trains=True,
        scans=True,
        edits=("elastic", "scale", "rotate"),  # those of elastic, in its order
        loop={"batch_size": 8, "steps": 300, "decay": "linear"},
    )

    def networks(self) -> dict[str, nn.Module]:
        """Return the translation, which adds to an image, and the segmenter."""
        schema, channels = self.schema, len(self.schema.channels)
        self.ours = gansynth.ChannelStatistics(channels)
        self.theirs = gansynth.ChannelStatistics(channels)
        strides = gansynth.strides_for(self.size, schema.spacing, levels=3)
        style = gansynth.UNetStyle(noise=False)
        found = len(schema.label_values)
        return {
            "generator": local(schema.ndim, channels, self.options.width),
            "segmenter": gansynth.UNetGenerator(
                schema.ndim, channels, found, SEGMENTER, strides, style=style
            ),
        }

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Both are trained together."""
        return {"generator": ("generator", "segmenter")}

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam."""
        return self.adam(parameters, self.options.rate, (0.5, 0.999))

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Return the intensities here."""
        for case in cases:
            self.ours.add(case.image)
        return {"ours": self.ours.to_json()}

    def observe_scans(self, scans: Iterable[Case]) -> dict[str, Any]:
        """Return those of the other site; DataFault: too few scans."""
        count = 0
        for scan in scans:
            self.theirs.add(scan.image)
            count += 1
        if count < FEWEST:
            raise gansynth.DataFault(
                "translate.too-few-scans",
                f"--target-scans: {count} scan(s), expected at least {FEWEST} to learn a look of; "
                "name more, or fit elastic with --set maps=scans, which one scan is enough for",
            )
        return {"theirs": self.theirs.to_json()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the intensities of both sites."""
        self.ours.load_json(state["ours"])
        self.theirs.load_json(state["theirs"])

    # -- training ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[gansynth.Phase]:
        """All losses at once."""
        return (gansynth.Phase("generator", self._translate),)

    def _translate(self, step: gansynth.TrainingStep) -> Mapping[str, Tensor]:
        o, (image, scans) = self.options, self._standardised(step)
        grain = step.randn(1, *image.shape[2:])
        there = self._there(image, grain)
        losses = {
            "look": unlike(there, scans, step.rng),
            "head": o.head * self._unfound(there, step.batch.labels),
        }
        if o.identity:
            same = self._there(scans, torch.zeros_like(grain))
            losses["identity"] = o.identity * (same - scans).abs().mean()
        return losses

    def _standardised(self, step: gansynth.TrainingStep) -> tuple[Tensor, Tensor]:
        assert step.batch.scans is not None, "a fit of translate has scans"
        image = self.ours.standardised(step.batch.image)
        return image, self.theirs.standardised(step.batch.scans)

    def _there(self, image: Tensor, grain: Tensor) -> Tensor:
        change: Tensor = self.nets["generator"](torch.cat((image, grain), 1))
        return (image + change).float()

    def _unfound(self, there: Tensor, labels: Any) -> Tensor:
        """Cross-entropy, each label of equal weight: a small lesion counts as much as the rest."""
        asked = gansynth.one_hot(labels, self.schema.label_values)
        surprise = -functional.log_softmax(self.nets["segmenter"](there, ()).float(), 1) * asked
        axes = [0, *range(2, surprise.ndim)]
        present = asked.sum(axes)
        return (surprise.sum(axes) / present.clamp(min=1)).sum() / (present > 0).sum().clamp(min=1)

    # -- samples -----------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, conditions: Sequence[Condition], seeds: Sequence[int]
    ) -> list[gansynth.Sample]:
        """One at a time: a seed means the same image at any batch size."""
        return [self._one(*pair) for pair in zip(conditions, seeds, strict=True)]

    def _one(self, condition: Condition, seed: int) -> gansynth.Sample:
        before, labels = condition.required("moved"), condition.required("labels")
        image = self.ours.standardised(torch.from_numpy(before)[None].to(self.device))
        grain = torch.randn(
            (1, 1, *before.shape[1:]), generator=torch.Generator().manual_seed(seed)
        )
        with self.autocast(self.device):
            there = self._there(image, grain.to(self.device))
        after = self.theirs.restored(there)[0].float().cpu().numpy().astype(np.float32)
        if self.schema.outside_fill is not None:
            after[:, labels == OUTSIDE] = np.array(self.schema.outside_fill, np.float32)[:, None]
        kept = {
            name: round(contrast(after, labels == value) / was, 3)
            for name, value in self.schema.labels.items()
            if value > 0 and (was := contrast(before, labels == value)) >= VISIBLE
        }
        return gansynth.Sample(after, labels, notes={"contrast_kept": kept})

    def reject_reason(self, sample: gansynth.Sample) -> str:
        """Return which labelled thing no longer stands out, or nothing."""
        kept: Mapping[str, float] = sample.notes.get("contrast_kept", {})
        least = self.options.least_contrast
        lost = [f"{name} ({share:.0%})" for name, share in kept.items() if share < least]
        if not lost:
            return ""
        return (
            "a labelled thing that hardly stands out once it is translated, expected "
            f"{least:.0%} of its contrast or more: {', '.join(lost)}"
        )


def local(axes: int, channels: int, width: int) -> nn.Module:
    """Return a network of an image and one channel of noise: two voxels each way."""
    conv = nn.Conv2d if axes == 2 else nn.Conv3d
    return nn.Sequential(
        conv(channels + 1, width, 3, padding=1, padding_mode="replicate"),
        nn.LeakyReLU(0.2),
        conv(width, width, 1),
        nn.LeakyReLU(0.2),
        conv(width, channels, 3, padding=1, padding_mode="replicate"),
    )


def unlike(drawn: Tensor, scans: Tensor, rng: torch.Generator) -> Tensor:
    """Return how differently patches are distributed, along random directions, at each scale."""
    axes = drawn.ndim - 2
    conv, halved = (
        (functional.conv2d, functional.avg_pool2d)
        if axes == 2
        else (functional.conv3d, functional.avg_pool3d)
    )
    distance = drawn.new_zeros(())
    for _ in range(SCALES):
        if min(drawn.shape[2:]) < PATCH:
            break
        shape = (SLICES, drawn.shape[1], *[PATCH] * axes)
        directions = torch.randn(shape, generator=rng, device=rng.device)
        directions /= directions.flatten(1).norm(dim=1).view(-1, *[1] * (axes + 1))
        ours, theirs = [
            conv(each, directions, stride=2).float().transpose(0, 1).flatten(1).sort(1)[0]
            for each in (drawn, scans)
        ]
        distance = distance + (ours - theirs).abs().mean()
        drawn, scans = halved(drawn, 2), halved(scans, 2)
    return distance


def contrast(image: gansynth.FloatArray, thing: Any) -> float:
    """Return by how many deviations of an image a thing differs from its rim, at most a channel."""
    rim = binary_dilation(thing, iterations=RIM) & ~thing
    if not thing.any() or not rim.any():
        return 0.0
    spread = image.reshape(len(image), -1).std(1) + 1e-6
    return float((np.abs(image[:, thing].mean(1) - image[:, rim].mean(1)) / spread).max())


@hookimpl
def register_generators(register: gansynth.Register) -> None:
    """Register ``translate``."""
    register("translate", lambda: Translate)
