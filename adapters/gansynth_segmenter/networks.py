"""The networks: a 3D U-Net, DeepMedic's dual path, and cgan3d-labels as pix2pix.

All are gansynth generators from images to label maps, so the common training loop trains them.

``unet``: a U-Net (Cicek et al. 2016) with instance normalisation, LeakyReLU, max-pooling, two
convolutions per level and concatenated skips. MM-GAN's generator has this architecture, and so have
the segmenters that evaluate its images (Sun et al. 2020, sec. III-B and IV-B). Its spectral
normalisation and tanh are left out. From 3DUnetCNN, which they also train: 16 features at the
finest level, 5 levels, Adam at 5e-4, a soft Dice of the foreground labels. Cross-entropy is added,
because Dice has no gradient for a label that a crop lacks. Left out are its residual blocks, its
deep supervision and its sigmoid loss of single labels.

``pix2pix``: Isola et al. 2017 in 3D, as Shin et al. 2018 (sec. 2.2) segment with it. The U-Net has
strided convolutions of width four and ends in a transposed one. Dropout in its coarse decoder stays
on in prediction. The discriminator is a conditional PatchGAN. Losses are adversarial and 100 L1,
with Adam at 2e-4 and beta1 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gansynth import (
    Capabilities,
    Condition,
    DataFault,
    Generator,
    GeneratorOptions,
    Phase,
    Sample,
    Schema,
    TrainingStep,
    UNetGenerator,
    UNetStyle,
    UsageFault,
    one_hot,
    strides_for,
)
from gansynth.nn.losses import soft_dice
from gansynth_segmenter.dual_path import DualPath
from gansynth_segmenter.options import SegmenterOptions

STYLE = UNetStyle(
    norm="instance",
    down="maxpool",
    double=True,
    activation="leaky_relu",
    skip="concat",
    noise=False,
)
PIX2PIX: Mapping[str, Any] = {
    # Of style=pix2pix, with one convolution more before the output.
    "style": {
        "down": "strided4",
        "up": "transposed",
        "skip": "concat",
        "g_stem": False,
        "noise": False,
        "d_norm": "instance",
        "d_down": "strided4",
        "d_stem": False,
        "texture_head": False,
    },
    "spectral_norm": False,
    "loss": "nonsaturating",
    "adversarial": 1.0,
    "feature_matching": 0.0,
    "dice": 0.0,
}
"""Options of cgan3d-labels that make it a segmenting pix2pix."""


class SegmentingOptions(GeneratorOptions):
    """Options of ``SegmentingNetwork``."""

    width: int = Field(16, ge=4, le=4096, description="features at the finest level")
    levels: int = Field(5, ge=1, le=7, description="resolutions of a U-Net")
    factors: tuple[int, ...] = Field(
        (), description="subsampling factors of DeepMedic's further paths; none for a U-Net"
    )
    learning_rate: float = Field(5e-4, gt=0, le=10, description="Adam's rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's first moment decay")


class SegmentingNetwork(Generator):
    """A U-Net, or DeepMedic's network (see ``dual_path``), from all channels to label logits."""

    name: ClassVar[str] = "segmenting-network"
    Options: ClassVar[type[GeneratorOptions]] = SegmentingOptions

    options: SegmentingOptions
    margin: int = 0  # voxels at each side of a crop that are seen, but not predicted

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            takes=frozenset({"channels"}),
            draws="labels",
            channels=self.schema.channels,
            trains=True,
            remedies={"not finite": "Lower the learning rate (--set learning_rate=1e-4)"},
        )

    def networks(self) -> dict[str, nn.Module]:
        schema, options = self.schema, self.options
        shape = len(schema.channels), len(schema.label_values), options.width
        if options.factors:
            deepmedic = DualPath(*shape, options.factors)
            self.margin = deepmedic.margin
            return {"generator": deepmedic}
        strides = strides_for(self.size, schema.spacing, options.levels)
        return {"generator": UNetGenerator(schema.ndim, *shape, strides, style=STYLE)}

    def phases(self) -> Sequence[Phase]:
        return [Phase("generator", self.loss)]

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        o = self.options
        return self.adam(parameters, o.learning_rate, (o.beta1, 0.999))

    def loss(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the cross-entropy of all labels and the soft Dice loss of the foreground."""
        if step.batch.labels is None:
            raise DataFault(
                "segmenter.case-without-labels",
                "segmenter: a case has no labels, expected a label map for each",
            )
        logits = self.nets["generator"](step.batch.image, []).float()
        values, cut = self.schema.label_values, self.margin
        inner = [slice(cut, n - cut) for n in step.batch.labels.shape[1:]]
        target = one_hot(step.batch.labels[(slice(None), *inner)], values)
        foreground = [i for i, value in enumerate(values) if value > 0]
        predicted = logits.softmax(1)
        if self.schema.ignore is None:
            cross_entropy = F.cross_entropy(logits, target.argmax(1))
        else:
            known = target.any(1)  # the ignore value has no channel
            each = F.cross_entropy(logits, target.argmax(1), reduction="none")
            cross_entropy = (each * known).sum() / known.sum().clamp(min=1)
            predicted = predicted * known[:, None]
        return {
            "cross_entropy": cross_entropy,
            "dice": soft_dice(predicted[:, foreground], target[:, foreground]),
        }

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Predict the label maps of given images; seeds have no effect."""
        samples = []
        for condition in conditions:
            if condition.given is None:
                raise DataFault(
                    "segmenter.condition-without-image",
                    "segmenter: a condition has no image given, expected one",
                )
            image = torch.from_numpy(np.asarray(condition.given, np.float32))[None]
            image = F.pad(image, [self.margin] * 2 * self.schema.ndim)
            chosen = probabilities(self, image.to(self.device)).argmax(1)[0].cpu().numpy()
            labels = np.array(self.schema.label_values, np.int16)[chosen]
            samples.append(Sample(condition.given, labels))
        return samples


def build(options: SegmenterOptions, schema: Schema, size: Sequence[int]) -> Generator:
    """Build an untrained segmenter; its weights depend on ``torch``'s seed."""
    width, levels = int(options.own("width")), int(options.own("levels"))
    rate, beta1 = options.own("learning_rate"), options.own("beta1")
    if options.network != "pix2pix":
        settings = SegmentingOptions(
            width=width,
            levels=levels or 1,
            factors=options.factors if options.network == "deepmedic" else (),
            learning_rate=rate,
            beta1=beta1,
        )
        return SegmentingNetwork(schema, size, settings)
    if schema.ignore is not None:
        raise UsageFault(
            "segmenter.discriminator-with-ignore-label",
            "network=pix2pix: its discriminator sees every voxel, and this data set has an ignore "
            "label; expected network=unet or network=deepmedic, which leave such voxels out",
        )
    from gansynth import installed

    cls = installed().generator("cgan3d-labels")
    values = dict(PIX2PIX)
    values |= {
        "style": PIX2PIX["style"] | {"dropout": options.own("dropout")},
        "given": schema.channels,
        "width": width,
        "levels": levels,
        "d_width": width,
        "d_levels": min(4, levels),
        "lr_generator": rate,
        "lr_discriminator": rate,
        "betas": (beta1, 0.999),
        "l1": options.l1,
    }
    return cls(schema, size, cls.Options(**values))


@torch.no_grad()
def probabilities(generator: Generator, images: Tensor) -> Tensor:
    """Return a segmenter's label probabilities: float32 (B, labels, ...)."""
    net = cast(UNetGenerator, generator.nets["generator"]).eval()
    latents = [
        torch.randn(len(images), *shape, generator=torch.Generator().manual_seed(place))
        for place, shape in enumerate(net.latent_shapes(images.shape[2:]))
    ]
    with generator.autocast(images.device):
        logits = net(images, [latent.to(images.device) for latent in latents])
    shares: Tensor = logits.float().softmax(1)
    return shares
