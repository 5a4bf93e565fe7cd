"""Label maps as channels that are drawn beside the image, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.nn.networks.blocks import one_hot
from gansynth_dcgan.options import DCGANOptions


class LabelChannels:
    """One channel for each label value, -1 (outside) included.

    The discriminator sees them from ``-scale`` (another label) to ``scale`` (this one), beside an
    image of mean 0 and deviation 1.

    Measured on hippocampus slices (4902 of 32 x 32 voxels; wgan-gp, width 16, n_critic 2, rates
    5e-4, 1500 steps) by a segmenter of real slices, whose Dice is 0.84 and 0.83 on held-out ones:

    - soft: it recovers drawn labels with a Dice of 0.78 and 0.73 (shuffled: 0.15 at most), whose
      areas are 0.90 and 0.98 of the real ones; one map in a hundred has a speck to be cleaned;
    - soft, ``d_norm=layer``: 0.69 and 0.64, and images are smoother; ``mask_scale=2``: 0.62, 0.67;
    - hard: 0.75 and 0.65, but areas of 0.2 and 0.5 of the real ones. They are learnt sooner: with
      200 steps of the generator (``d_norm=layer``) hard ones began to fit, soft ones were empty.

    - linear, as Neff et al. 2017 drew masks: 0.75 and 0.61.

    ``objective=gan`` is no good with label maps: soft and hard ones stayed empty or noise; linear
    ones were learnt (0.45 and 0.20 after 1500 steps) and lost again (0.11 and 0.01 after 4000).
    ``wgan`` learns slowly (soft: 0.28 and 0.46 after 2500 steps, rates 2e-4).

    ``values``: label values in channel order; none if they are not drawn.
    """

    def __init__(self, schema: Schema, options: DCGANOptions) -> None:
        self.values = schema.label_values if options.with_mask else ()
        self.scale = options.mask_scale
        self.output = options.mask_output or options.usual.mask_output

    def __len__(self) -> int:
        return len(self.values)

    def of_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, ...) as probabilities (B, len(self), ...): 0 or 1."""
        return one_hot(labels, self.values)

    def of_logits(self, logits: Tensor) -> Tensor:
        """What was drawn as probabilities (B, len(self), ...).

        Soft ones are; linear ones are so in name only: they are drawn as an image is, any number
        may come. Hard ones are 0 or 1, and have the gradient of the soft ones (straight through:
        Bengio et al. 2013, arXiv:1308.3432).
        """
        if self.output == "linear":
            return (logits + 1) / 2
        soft = logits.softmax(1)
        if self.output == "soft":
            return soft
        sure = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
        return sure + soft - soft.detach()

    def shown(self, probabilities: Tensor) -> Tensor:
        """Probabilities as the discriminator sees them."""
        return self.scale * (2 * probabilities - 1)

    def outside(self, probabilities: Tensor) -> Tensor | None:
        """How probably a voxel is outside, (B, 1, ...); None if there is no such label."""
        if OUTSIDE not in self.values:
            return None
        at = self.values.index(OUTSIDE)
        return probabilities[:, at : at + 1].clamp(0, 1)

    def labels(self, probabilities: Tensor) -> LabelArray:
        """The most probable labels int16 (B, ...)."""
        values = np.array(self.values, np.int16)
        found: LabelArray = values[probabilities.argmax(1).cpu().numpy()]
        return found
