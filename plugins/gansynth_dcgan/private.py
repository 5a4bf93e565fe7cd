"""``dcgan`` under differential privacy: what its players minimise, and what they see of people.

The discriminator learns from real cases through noisy gradients alone (Xie et al. 2018, DPGAN,
arXiv:1802.06739). All else that either player sees is drawn by the generator, which knows people by
the discriminator only: it needs no noise. So it is added to the gradient as it is, and the
generator's steps are the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.generator import Batch, Phase, Step
from gansynth.private import Mechanism
from gansynth_dcgan.objective import Objective
from gansynth_dcgan.options import DCGANOptions

Term = Callable[[Tensor], Tensor]
TERMS: Mapping[str, tuple[Term, Term]] = {
    "gan": (lambda value: F.softplus(-value).mean(), lambda value: F.softplus(value).mean()),
    "wgan": (lambda value: -value.mean(), lambda value: value.mean()),
}
"""What the discriminator minimises of real values, and of synthetic ones; see ``losses``."""


UNITS = (
    "mean and deviation of intensities, learnt from all cases: the promise is that of a run to "
    "which they were known beforehand (privacy_units)"
)


def mechanism(options: DCGANOptions) -> Mechanism:
    """What adds the private gradients, as a user asked for it."""
    learnt = () if options.privacy_units is not None or options.output == "tanh" else (UNITS,)
    return Mechanism(
        options.privacy_noise,
        options.privacy_epsilon,
        1.0 if options.privacy_clip is None else options.privacy_clip,
        options.privacy_delta,
        uncovered=learnt,
    )


class PrivateObjective(Objective):
    """Losses of both players; those of synthetic samples are all that is said or logged."""

    def phases(self) -> Sequence[Phase]:
        """As ever, but that the discriminator adds private gradients to those of its loss."""
        return [
            replace(phase, gradients=self.real) if phase.player == "discriminator" else phase
            for phase in super().phases()
        ]

    def generator(self, step: Step) -> Mapping[str, Tensor]:
        """Fool the discriminator."""
        return super().generator(_public(step))

    def discriminator(self, step: Step) -> Mapping[str, Tensor]:
        """Know synthetic samples: as many as people are drawn on average."""
        public = _public(step)
        values = self._judge(public, self._changed(public, self._fake(public)))
        return {"synthetic": TERMS[self.options.objective][1](values.float())}

    def real(self, step: Step) -> None:
        """Know real ones: the private part of the discriminator's gradient."""
        private = self.gan.privacy
        assert private is not None, "or this would be the plain objective"
        chance = torch.Generator(step.rng.device)
        chance.manual_seed(private.seed("augment", private.number(step.index)) >> 65)
        # Numbers of its own: how many are drawn must not move those of what is public.
        alone = replace(step, rng=chance, first=0, total=0)
        seen = self._changed(alone, self._real(alone))
        real = TERMS[self.options.objective][0]
        private.add(
            self.gan.nets["discriminator"],
            lambda judge, case: real(judge(case)),
            seen,
            step.index,
        )


def _public(step: Step) -> Step:
    """A step that has no real case in it, of as many samples as are expected."""
    nobody = Batch(step.batch.image.new_empty((step.total, 0)))
    return replace(step, batch=nobody, first=0)
