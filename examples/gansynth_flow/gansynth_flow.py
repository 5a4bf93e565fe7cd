"""``flow``: label map to image by flow matching (Lipman et al. 2023, arXiv:2210.02747).

A network learns the velocity (equation 23, sigma_min = 0) from noise at time 0 to images at time 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import gansynth
from gansynth import OUTSIDE, Capabilities, Condition, Generator, GeneratorOptions, hookimpl

gansynth_api = 4


class FlowOptions(GeneratorOptions):
    """Keys of ``--set``."""

    width: int = Field(16, ge=4, description="features at the finest level; doubled per level")
    solver_steps: int = Field(16, ge=1, description="steps from noise to the image")


class Flow(Generator):
    """A U-Net that is told labels and time, integrated by Euler's method."""

    name = "flow"
    Options = FlowOptions
    options: FlowOptions
    capabilities = Capabilities(takes=frozenset({"labels"}), trains=True)

    def networks(self) -> dict[str, nn.Module]:
        """Image, label map and time in, velocity out."""
        schema, channels = self.schema, len(self.schema.channels)
        ends = channels + len(schema.label_values) + 1, channels
        strides = gansynth.strides_for(self.size, schema.spacing, levels=4)
        style = gansynth.UNetStyle(noise=False)
        net = gansynth.UNetGenerator(schema.ndim, *ends, self.options.width, strides, style=style)
        return {"generator": net}

    def phases(self) -> Sequence[gansynth.Phase]:
        """One regression."""
        return (gansynth.Phase("generator", self._regress),)

    def _regress(self, step: gansynth.TrainingStep) -> Mapping[str, Tensor]:
        image, labels = step.batch.image, step.batch.labels
        noise, time = step.randn(*image.shape[1:]), step.rand(1, *[1] * self.schema.ndim)
        velocity = self._velocity(torch.lerp(noise, image, time), labels, time)
        return {"velocity": (velocity - (image - noise)).square().mean()}

    def _velocity(self, image: Tensor, labels: Any, time: Tensor) -> Any:
        condition = gansynth.one_hot(labels, self.schema.label_values)
        inputs = (image, condition, time.expand(-1, 1, *self.size))
        return self.nets["generator"](torch.cat(inputs, 1), ()).float()

    @torch.no_grad()
    def sample(
        self, conditions: Sequence[Condition], seeds: Sequence[int]
    ) -> list[gansynth.Sample]:
        """One at a time: a seed means the same image at any batch size."""
        samples = []
        for condition, seed in zip(conditions, seeds, strict=True):
            labels = torch.as_tensor(condition.labels, device=self.device)[None].long()
            shape = (1, len(self.schema.channels), *self.size)
            image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            image, count = image.to(self.device), self.options.solver_steps
            for i in range(count):
                time = image.new_full((1, 1, *[1] * self.schema.ndim), (i + 0.5) / count)
                image = image + self._velocity(image, labels, time) / count
            if self.schema.outside_fill is not None:
                fill = image.new_tensor(self.schema.outside_fill).view(-1, *[1] * self.schema.ndim)
                image = torch.where((labels == OUTSIDE)[:, None], fill, image)
            samples.append(gansynth.Sample(image[0].cpu().numpy(), condition.labels))
        return samples


@hookimpl
def register_generators(register: gansynth.Register) -> None:
    """Register ``flow``."""
    register("flow", lambda: Flow)
