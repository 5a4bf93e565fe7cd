"""What must hold of a discriminator's numbers for real cases (``Generator.realness``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gansynth.core.schema import Case
from gansynth.testing._sample_checks import random_states, seeded_oddly
from gansynth.testing.report import Broken, Skip

if TYPE_CHECKING:
    from torch import Tensor

    from gansynth.core.generator import Generator

ASKED = 4
"""Cases that it is asked about."""
SAME = 1e-3
"""Numbers are the same if they differ by less than this share of the largest."""


def check_realness(generator: Generator, cases: Sequence[Case]) -> None:
    """One finite number for each case, the same in any company; nothing is changed by asking.

    Raises:
        Broken: what does not hold.
        Skip: there is no discriminator that can be asked.
    """
    asked = [case for case in cases if generator.accepts(case)][:ASKED]
    before = _state(generator)
    with seeded_oddly():
        states = random_states()
        found = _ask(generator, asked)
        touched = [name for name, value in random_states().items() if value != states[name]]
    if found is None:
        raise Skip("no discriminator that can be asked")
    if tuple(found.shape) != (len(asked),):
        raise Broken(f"{tuple(found.shape)} for {len(asked)} cases, expected ({len(asked)},)")
    if not found.isfinite().all():
        raise Broken("NaN or infinite, expected finite numbers")
    alone = [_ask(generator, [case]) for case in asked]
    turned = _ask(generator, asked[::-1])
    _same(found, [one for one in alone if one is not None], "one at a time instead of at once")
    _same(found, [] if turned is None else [turned.flip(0)], "in another order")
    after = _state(generator)
    touched += [name for name in before if before[name] != after.get(name)]
    if touched:
        raise Broken(f"realness() changed {touched[0]}, expected everything as it was")


def _ask(generator: Generator, cases: Sequence[Case]) -> Tensor | None:
    from gansynth.data.batches import batch_of

    stage = generator.stages()[-1]
    batch = batch_of(cases, generator.context).to(generator.device)
    return generator.realness(generator.prepare(batch, stage), stage)


def _same(wanted: Tensor, found: Sequence[Tensor], when: str) -> None:
    import torch

    together = torch.cat(list(found)) if found else wanted[:0]
    if together.shape != wanted.shape:
        raise Broken(f"{len(together)} numbers {when}, expected {len(wanted)}")
    apart = float((together - wanted).abs().max())
    most = SAME * float(wanted.abs().max())
    if not apart <= most:
        raise Broken(f"numbers differ by {apart:.3g} {when}, expected at most {most:.3g}")


def _state(generator: Generator) -> dict[str, bytes]:
    """Weights, buffers, memories and modes, by name."""
    held = {
        f"{name}/{key}": value
        for name, net in generator.nets.items()
        for key, value in net.state_dict().items()
    }
    for name, memory in generator.memories.items():
        held.update({f"{name}/{key}": value for key, value in memory.state().items()})
    found = {name: value.cpu().numpy().tobytes() for name, value in held.items()}
    for name, net in generator.nets.items():
        found[f"the mode of {name}"] = bytes(module.training for module in net.modules())
    return found
