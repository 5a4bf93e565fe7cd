"""Gradients of a discriminator that are private: clipped person by person, summed, and noised.

Abadi et al. 2016 (DP-SGD, arXiv:1607.00133, algorithm 1). Who is drawn in a step and the noise come
from a secret key and the number of the private step, so a run that was cut off goes on to the bit,
and nobody without the key can take the noise off again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gansynth.errors import TrainingFault, UsageFault
from gansynth.privacy import Terms, record

AT_ONCE = 16
"""People whose gradients are held at the same time."""
KEY_BYTES = 32

Judged = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""(network, one person's case (1, C, ...)) -> what that person contributes to the loss, a scalar
in which nobody else takes part."""


@dataclass
class Mechanism:
    """Adds private gradients to a network's; a ``Memory``: it remembers how many.

    Attributes:
        noise: as the user asked; see ``gansynth.privacy.terms``, like the next three.
        epsilon: likewise.
        clip: likewise.
        delta: likewise.
        terms: what that comes to with the source's people; None until a fit has said so.
        uncovered: what the fit has learnt or written of people without noise.
        key: what chance comes from; secret. A fit keeps it in the run folder until it is done.
        steps: private steps made so far, those that were taken back included.
        back: of these, the ones that were taken back.
    """

    noise: float | None
    epsilon: float | None
    clip: float
    delta: float | None
    terms: Terms | None = None
    uncovered: tuple[str, ...] = ()
    key: bytes = field(default_factory=lambda: secrets.token_bytes(KEY_BYTES), repr=False)
    steps: int = 0
    back: int = 0

    @property
    def agreed(self) -> Terms:
        """The terms.

        Raises:
            UsageFault: nobody has said who the people are.
        """
        if self.terms is None:
            raise UsageFault(
                "privacy: nobody has said who the training people are, expected a fit of a source; "
                "leave privacy_noise and privacy_epsilon out, or fit by gansynth fit"
            )
        return self.terms

    @property
    def spent(self) -> float:
        """Epsilon so far."""
        return self.agreed.epsilon(self.steps)

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return record(self.agreed, self.steps, self.uncovered)

    # -- chance ------------------------------------------------------------------------------------

    def number(self, index: int) -> int:
        """The private step that an optimiser step is: one that was taken back is never repeated."""
        return index + self.back

    def seed(self, *what: object) -> int:
        """128 bits for a generator of random numbers, by the key and what they are for."""
        return int.from_bytes(self._stream(16, *what), "little")

    def uniform(self, count: int, *what: object) -> npt.NDArray[np.float64]:
        """Uniform numbers in (0, 1), likewise, 53 bits each."""
        words = np.frombuffer(self._stream(8 * count, *what), "<u8") >> np.uint64(11)
        return (words.astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, count: int, *what: object) -> npt.NDArray[np.float64]:
        """Standard normal numbers, likewise."""
        from scipy.special import ndtri

        found: npt.NDArray[np.float64] = ndtri(self.uniform(count, *what))
        return found

    def _stream(self, count: int, *what: object) -> bytes:
        # Torch's generator on a CPU has 2**32 beginnings: all of them could be tried.
        return hashlib.shake_256(self.key + repr(what).encode()).digest(count)

    # -- gradients ---------------------------------------------------------------------------------

    def add(self, net: nn.Module, judged: Judged, cases: Tensor, index: int) -> None:
        """Add the private gradient of real cases to ``grad`` of a network's parameters.

        It is the sum of each person's gradient, clipped, and of noise, over the number of people
        that a step draws *on average*: how many it has drawn is as private as who.

        Args:
            net: the discriminator; it mixes nothing between cases, and keeps no buffers.
            judged: what a person contributes to the loss.
            cases: (B, C, ...), one of each person that was drawn; there may be none.
            index: optimiser step.

        Raises:
            TrainingFault: steps were taken back, and an epsilon that was asked for allows no more.
        """
        agreed, number = self._spend(), self.number(index)
        parameters = {k: p for k, p in net.named_parameters() if p.requires_grad}
        summed = clipped_sum(net, judged, cases, agreed.clip)
        scale = agreed.noise * agreed.clip
        for name, parameter in parameters.items():
            noise = scale * self.normal(parameter.numel(), "noise", number, name)
            drawn = torch.from_numpy(noise).to(parameter).view_as(parameter)
            private = (summed[name] + drawn) / (agreed.rate * agreed.people)
            parameter.grad = private if parameter.grad is None else parameter.grad + private

    def _spend(self) -> Terms:
        """Count a step."""
        agreed = self.agreed
        if agreed.target is not None and agreed.epsilon(self.steps + 1) > agreed.target:
            raise TrainingFault(
                f"training: {self.steps} private steps, {self.back} of them taken back, have spent "
                f"privacy_epsilon={agreed.target:g}, expected it to last for all; the last "
                "checkpoint keeps the promise. Fit again with lower learning rates, or fewer steps"
            )
        self.steps += 1
        return agreed

    # -- as a memory -------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """How many steps, int64; never the key."""
        return {"steps": torch.tensor(self.steps), "back": torch.tensor(self.back)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave; steps that this process has made since stay spent."""
        steps, back = int(state["steps"]), int(state["back"])
        if self.steps > steps:  # the run goes back to a checkpoint
            self.back = self.steps - (steps - back)
        else:
            self.steps, self.back = steps, back


def clipped_sum(net: nn.Module, judged: Judged, cases: Tensor, clip: float) -> dict[str, Tensor]:
    """The sum of people's gradients, each of a norm of ``clip`` at most, by parameter; float32.

    A gradient that is not finite counts as zero: what ails one person must not show.

    Args:
        net: as in ``Mechanism.add``, like the rest.
        judged: of one person.
        cases: of people.
        clip: most norm, over all parameters together.
    """
    live = {k: p.detach() for k, p in net.named_parameters() if p.requires_grad}

    def one(parameters: dict[str, Tensor], case: Tensor) -> Tensor:
        return judged(lambda seen: functional_call(net, parameters, (seen,)), case[None])

    summed = {name: torch.zeros_like(value) for name, value in live.items()}
    with torch.autocast(cases.device.type, enabled=False):
        for start in range(0, len(cases), AT_ONCE):
            some = vmap(grad(one), (None, 0))(live, cases[start : start + AT_ONCE].float())
            squares = [value.flatten(1).double().square().sum(1) for value in some.values()]
            norms = torch.stack(squares).sum(0).sqrt()
            factors = (clip / norms.clamp_min(clip)).float()
            for name, value in some.items():
                rows = torch.where(_like(norms.isfinite(), value), value, 0.0)
                summed[name] += torch.tensordot(torch.nan_to_num(factors), rows, 1)
    return summed


def _like(flags: Tensor, value: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (value.ndim - 1))
