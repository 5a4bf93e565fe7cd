"""A student that follows a mean teacher, and a start from a masked autoencoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth import FloatArray, Generator, Phase, TrainingStep, UNetGenerator, strides_for
from gansynth_segmenter.networks import STYLE, SegmentingNetwork, SegmentingOptions

NOISE, MOST_NOISE = 0.1, 0.2  # of both views of a scan (Yu et al. 2019)
FOLLOWS = 0.99  # decay of the teacher's weights, as there
RAMP = 0.4  # share of the steps in which the weight rises
MASKED, CELL = 0.6, 8  # share of an image that is hidden, in squares of so many voxels


class StudentNetwork(SegmentingNetwork):
    """A U-Net that also agrees with the mean of its own weights on unlabelled scans.

    Tarvainen and Valpola 2017; noise, ramp and decay as Yu et al. 2019 (MICCAI, UA-MT) have them.
    Real samples of a step, and their loss, are those of the segmenter; as many scans are added.
    """

    draw: Callable[[int, int], FloatArray]
    weight: float
    steps: int

    @classmethod
    def of(
        cls,
        network: Generator,
        draw: Callable[[int, int], FloatArray],
        weight: float,
        steps: int,
    ) -> StudentNetwork:
        """Return a student with the weights of a network; ``draw``: step, count -> scans."""
        assert isinstance(network.options, SegmentingOptions)
        student = cls(network.schema, network.size, network.options)
        student.nets = network.nets
        student.draw, student.weight, student.steps = draw, weight, steps
        student._teacher = copy.deepcopy(network.nets["generator"]).requires_grad_(False)
        return student

    def phases(self) -> Sequence[Phase]:
        """One phase; after it the teacher follows."""
        return [Phase("generator", self.loss, after=self._follow)]

    def loss(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the segmenter's terms and the consistency on scans."""
        terms = dict(super().loss(step))
        image = step.batch.image
        scans = torch.from_numpy(self.draw(step.index, len(image))).to(image.device)
        self._teacher.to(image.device)
        student = self.nets["generator"](_noisy(scans, step.rng), []).float().softmax(1)
        with torch.no_grad():
            teacher = self._teacher(_noisy(scans, step.rng), []).float().softmax(1)
        rise = min(1.0, step.index / (RAMP * self.steps))
        weight = self.weight * math.exp(-5 * (1 - rise) ** 2)
        terms["consistency"] = weight * F.mse_loss(student, teacher)
        self._done = step.index + 1
        return terms

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(1 - 1 / (self._done + 1), FOLLOWS)
        pairs = zip(self._teacher.parameters(), self.nets["generator"].parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1 - keep)


def _noisy(images: Tensor, rng: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=rng, device=images.device) * NOISE
    return images + noise.clamp(-MOST_NOISE, MOST_NOISE)


def start_from_scans(
    network: Generator, scans: Sequence[FloatArray], steps: int, batch_size: int
) -> None:
    """Give a U-Net the weights that restore hidden squares of scans, but for its last layer."""
    assert isinstance(network.options, SegmentingOptions)
    schema, options = network.schema, network.options
    strides = strides_for(network.size, schema.spacing, options.levels)
    channels = len(schema.channels)
    model = UNetGenerator(schema.ndim, channels, channels, options.width, strides, style=STYLE)
    optimizer = torch.optim.Adam(model.parameters(), options.learning_rate)
    rng, images = np.random.default_rng(0), torch.from_numpy(np.stack(scans))
    for _ in range(steps):
        shown = images[torch.from_numpy(rng.integers(len(images), size=batch_size))]
        cells = [math.ceil(n / CELL) for n in shown.shape[2:]]
        hidden = torch.from_numpy(rng.random((batch_size, 1, *cells)) < MASKED).float()
        hidden = F.interpolate(hidden, size=shown.shape[2:], mode="nearest")
        restored = model(shown * (1 - hidden), [])
        loss = (hidden * (restored - shown) ** 2).sum() / hidden.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    own = network.nets["generator"].state_dict()
    learnt = {
        name: value
        for name, value in model.state_dict().items()
        if value.shape == own[name].shape and not name.startswith("image.")
    }
    network.nets["generator"].load_state_dict({**own, **learnt})
