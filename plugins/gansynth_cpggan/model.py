"""``cpggan``: a progressive GAN conditioned on the bounding boxes of lesions.

Karras et al. 2018 (PGGAN, arXiv:1710.10196), conditioned as Han et al. 2019 (CPGGAN,
arXiv:1902.09856): both networks get maps of the boxes at every resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gansynth.core.generator import (
    Batch,
    Generator,
    GeneratorOptions,
    Heeded,
    LabelSource,
    Phase,
    Stage,
)
from gansynth.core.schema import Boxes, Case, Condition, Sample
from gansynth.data.lesion_contrast import LesionContrast
from gansynth.data.standardise import ChannelStatistics
from gansynth.runtime.devices import adam
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_cpggan.boxes import boxes_of_each
from gansynth_cpggan.networks import GrowthSchedule, ProgressiveDiscriminator, ProgressiveGenerator
from gansynth_cpggan.objective import CPGGANObjective
from gansynth_cpggan.options import CPGGANOptions
from gansynth_cpggan.sampling import WINDOWS, CPGGANSampler

__all__ = ["CPGGAN", "CPGGANOptions"]


class CPGGAN(Generator):
    """Progressive GAN: noise and boxes in, an image with lesions in the boxes out."""

    name: ClassVar[str] = "cpggan"
    Options: ClassVar[type[GeneratorOptions]] = CPGGANOptions
    loop: ClassVar[Mapping[str, Any]] = {"batch_size": 16, "ema_half_life": 10_000}

    options: CPGGANOptions

    # -- networks ----------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return a generator and a discriminator that grow together."""
        o, schema = self.options, self.schema
        if not schema.box_classes:
            raise UsageFault(
                "cpggan: the source's cases have no boxes, expected some. Use "
                "a yolo: data set, or boxes of label maps: --data slices:... --read boxes=yes"
            )
        if o.condition == "class" and not schema.classes:
            raise UsageFault(
                "--set condition=class: the source's cases have no classes, expected some; name "
                "them (gansynth help sources), or use condition=none"
            )
        size = (o.roi_size, o.roi_size) if self.lesions else self.size
        self.growth = GrowthSchedule.of(size, o.width, o.max_width)
        self.edge = self.growth.edges[-1]
        self.intensities = ChannelStatistics(len(schema.channels))
        self.counts = [0] * self.kinds
        self.objective, self.drawing = CPGGANObjective(self), CPGGANSampler(self)
        self.contrast: LesionContrast | None = None
        channels, classes = len(schema.channels), len(schema.box_classes)
        self.painter = ProgressiveGenerator(self.growth, o.latent, self.kinds, channels, classes)
        judge = ProgressiveDiscriminator(self.growth, self.kinds, channels, classes, o.spp)
        return {"generator": self.painter, "discriminator": judge}

    @property
    def kinds(self) -> int:
        """Number of classes that can be requested; 0 without ``condition=class``."""
        return len(self.schema.classes) if self.options.condition == "class" else 0

    @property
    def lesions(self) -> bool:
        """Whether it generates lesions alone and blends them into real slices."""
        return self.options.mode == "roi"

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Range of the images: option ``output``."""
        return self.options.output

    @property
    def label_source(self) -> LabelSource:
        """Samples have boxes, no label maps."""
        return "none"

    @property
    def conditioned_on(self) -> frozenset[Heeded]:
        """Boxes; the class with ``condition=class``; the background slice with ``mode=roi``."""
        inputs: set[Heeded] = {"boxes"}
        if self.kinds:
            inputs.add("class")
        if self.lesions:
            inputs.add("background")
        return frozenset(inputs)

    def stages(self) -> Sequence[Stage]:
        """Return one stage per size: it fades in, then stays; the last one stays to the end."""
        o, edges = self.options, self.growth.edges
        batches: list[int | None] = [*o.batch_sizes] or [None]
        batches = (batches + batches[-1:] * len(edges))[: len(edges)]
        fades = [0] + [o.fade_images] * (len(edges) - 1)
        return [
            Stage((edge, edge), batch, None if edge == self.edge else fade + o.stage_images, fade)
            for edge, batch, fade in zip(edges, batches, fades, strict=True)
        ]

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Return the weights whose axes are latents, classes, image channels or boxes."""
        images = tuple(f"image:{name}" for name in self.schema.channels)
        boxes = tuple(f"box:{name}" for name in self.schema.box_classes)
        kinds = tuple(f"class:{name}" for name in self.schema.classes[: self.kinds])
        latents = tuple(f"latent:{i}" for i in range(self.options.latent))

        def features(count: int, *extra: str) -> tuple[int, tuple[str, ...]]:
            return 1, (*(f"feature:{i}" for i in range(count)), *extra, *boxes)

        widths = self.growth.widths
        axes: dict[str, tuple[int, Sequence[str]]] = {
            "generator/first.weight": (1, (*latents, *kinds)),
            "generator/begin.weight": features(widths[0]),
            "discriminator/end.weight": features(widths[0], "deviation"),
        }
        if kinds:
            axes["discriminator/told.weight"] = (0, kinds)
        for i, width in enumerate(widths):
            axes[f"generator/image.{i}.weight"] = axes[f"generator/image.{i}.bias"] = (0, images)
            axes[f"discriminator/image.{i}.weight"] = (1, (*images, *boxes))
            if i:
                axes[f"generator/enter.{i - 1}.weight"] = features(widths[i - 1])
                axes[f"discriminator/refine.{i - 1}.weight"] = features(width)
        return axes

    # -- training ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Return the phases of ``CPGGANObjective``."""
        return self.objective.phases()

    @property
    def compilable(self) -> Sequence[str]:
        """None: they grow, and the share of a fading layer changes at every step."""
        return ()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam without a first moment, at the player's learning rate."""
        o = self.options
        rate = o.lr_generator if player == "generator" else o.lr_discriminator
        return adam(parameters, rate, (0.0, 0.99))

    def accepts(self, case: Case) -> bool:
        """Accept cases with a list of boxes; with ``mode=roi`` it must not be empty."""
        if case.boxes is None:
            return False
        return not self.lesions or len(case.boxes.labels) > 0

    def observe(self, cases: Iterable[Case]) -> None:
        """Fit intensities, classes and contrast; DataFault: a case lacks boxes or class."""
        watched = self._watched(cases)
        if self.options.admit == "contrast":
            self.contrast = LesionContrast.fit(watched, self.schema.box_classes)
        for _ in watched:
            pass

    def _watched(self, cases: Iterable[Case]) -> Iterator[Case]:
        for case in cases:
            if case.boxes is None:
                raise DataFault(
                    f"case {case.id!r}: has no list of boxes, expected one, which may be empty; "
                    "leave the case out"
                )
            if self.kinds:
                if case.label_class is None:
                    raise DataFault(
                        f"case {case.id!r}: has no class, expected one for "
                        "condition=class; leave the case out, or use --set condition=none"
                    )
                self.counts[case.label_class] += 1
            if self.options.output == "linear":
                self.intensities.add(case.image)
            yield case

    def state(self) -> dict[str, Any]:
        """Return what ``observe`` fitted: numbers, no image."""
        return {
            "intensities": self.intensities.to_json(),
            "classes": list(self.counts),
            "contrast": None if self.contrast is None else self.contrast.to_json(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        if not state:
            return
        self.intensities.load_json(state["intensities"])
        self.counts = [int(count) for count in state["classes"]]
        contrast = state["contrast"]
        self.contrast = None if contrast is None else LesionContrast.from_json(contrast)

    def standardised(self, image: Tensor) -> Tensor:
        """Return images in the networks' units, float32."""
        return self.intensities.standardised(image)

    def told(self, batch: Batch) -> Tensor | None:
        """Return the classes of a training batch, int64 (B,); None if unconditional."""
        if not self.kinds:
            return None
        assert batch.classes is not None, "observe() checks that each case has a class"
        return batch.classes

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the critic's value of real images with their boxes, each in its own group.

        Returns None for a size that training has not reached, and for cases without boxes or class.
        With ``mode=roi`` each case needs a box.
        """
        stage = stage if stage.size is not None else self.stages()[-1]
        batch_level = self.objective.level(stage)
        level, alpha = self.drawing.grown()
        incomplete = batch.box_labels is None or (self.kinds > 0 and batch.classes is None)
        if incomplete or batch_level > level:
            return None
        if self.lesions and not boxes_of_each(batch).all():
            return None
        with self.at_rest():
            return self.objective.realness(batch, stage, alpha if batch_level == level else 1.0)

    # -- sampling ----------------------------------------------------------------------------------

    def drawn(
        self, latents: Tensor, maps: Tensor, level: int, alpha: float, kinds: Tensor | None
    ) -> Tensor:
        """Generate images from latents and box maps: standardised units, float32."""
        image: Tensor = self.painter(latents, maps, level, alpha, kinds).float()
        return image.tanh() if self.options.output == "tanh" else image

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; its randomness depends on its seed alone.

        Conditions have ``boxes``. Without ``label_class``, classes are as frequent as in training.
        ``mode=roi`` also needs ``background`` and the boxes ``present`` in it.
        """
        return self.drawing.samples(conditions, seeds)

    @torch.no_grad()
    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """Return samples from one latent to another; boxes and the first end's class stay."""
        return self.drawing.walk(condition, ends, steps)

    def reject_reason(self, sample: Sample) -> str:
        """Return why a sample is rejected: no room for a lesion, or low contrast in a box."""
        moved = sample.provenance.get("boxes", {}).get("moved")
        if moved and not any(moved):
            return (
                "no room for a lesion, expected a slice with room where its class lies; add "
                "slices without lesions to the training data"
            )
        if self.contrast is None or sample.boxes is None:
            return ""
        drawn = sample.boxes
        if self.lesions:  # boxes of the real slice come first and are not checked
            first = len(drawn.labels) - len(sample.notes[WINDOWS])
            drawn = Boxes(drawn.coords[first:], drawn.labels[first:])
        return self.contrast.reject_reason(sample.image, drawn)
