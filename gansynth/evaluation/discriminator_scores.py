"""The discriminator of a run, and how real it finds cases: what membership inference asks.

A manifest's weights are those that draw samples; the discriminator is in the checkpoints alone.
Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gansynth.core.run_folder import MANIFEST, read_manifest
from gansynth.core.schema import Case
from gansynth.runtime.errors import IntegrityFault
from gansynth.sampling.open_run import load_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from gansynth.core.generator import Generator

BANK = "bank.json"
AT_ONCE = 16
"""Cases that a discriminator is asked about at once."""


def load_critic(run: Path, device: torch.device) -> Generator | None:
    """A run's generator with the discriminator of its newest whole checkpoint.

    What draws samples has the averaged weights, as ``load_run`` has it; every other network those
    that were trained last.

    A composite run has none: its parts each judge other channels or classes, in units and labels of
    their own, and no one number is theirs together. Ask a part, ``RUN/parts/NAME``, about cases as
    the part saw them.

    Returns:
        None where no discriminator is kept: a generator without one, a run without checkpoints, a
        composite run, a bank.

    Raises:
        UsageFault: the folder is none of these.
        IntegrityFault: the run is damaged, or its checkpoints all are.
    """
    from gansynth.training import checkpoint

    if (run / BANK).is_file() and not (run / MANIFEST).is_file():
        return None
    manifest, folder = read_manifest(run), run / "checkpoints"
    if "parts" in manifest or not any(folder.glob(f"step-*/{checkpoint.TENSORS}")):
        return None
    found = checkpoint.latest(folder)
    generator = load_run(run, str(device)).generator
    names = [name for name in generator.nets if name not in generator.ema]
    if found is None or not names:
        return None
    for name in names:
        prefix = f"net/{name}/"
        own = {k.removeprefix(prefix): v for k, v in found.tensors.items() if k.startswith(prefix)}
        _check(found.folder, name, generator.nets[name].state_dict(), own)
        generator.nets[name].load_state_dict(own)
    return generator


def _check(
    folder: Path, name: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    shapes = {k: v.shape for k, v in wanted.items()}, {k: v.shape for k, v in found.items()}
    differing = [k for k in wanted.keys() | found.keys() if shapes[0].get(k) != shapes[1].get(k)]
    if differing:
        first = min(differing)
        raise IntegrityFault(
            f"{folder}: {len(differing)} tensor(s) do not fit network {name!r}, first {first}: "
            f"{shapes[1].get(first)}, expected {shapes[0].get(first)}; this run was made by "
            "another version of its plugin. Fit it again"
        )


def realness(generator: Generator, cases: Sequence[Case]) -> npt.NDArray[np.float32] | None:
    """How real a discriminator finds cases, float32 (N,); higher is more real.

    Args:
        generator: of ``load_critic``; asked in its last stage.
        cases: in the generator's space, of one size, with what it is told of them.

    Returns:
        None where it cannot be asked (``Generator.realness``).
    """
    from gansynth.data.batches import batch_of

    stage, found = generator.stages()[-1], []
    for start in range(0, len(cases), AT_ONCE):
        batch = batch_of(cases[start : start + AT_ONCE], generator.context)
        values = generator.realness(generator.prepare(batch.to(generator.device), stage), stage)
        if values is None:
            return None
        found.append(values.cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0, np.float32)
