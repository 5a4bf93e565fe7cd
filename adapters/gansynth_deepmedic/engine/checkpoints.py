"""Checkpoints of the torch engine, one an epoch: ``gansynth.training.checkpoint``'s folders, by
epochs done.

Nothing random is kept: whatever is drawn is keyed by seed and subepoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import GansynthError, IntegrityFault, TrainingFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.training import checkpoint
from gansynth_deepmedic.engine.network import DualPath
from gansynth_deepmedic.engine.optimiser import Optimiser, Rates

FOLDER = "checkpoints"
_NAME = "network"


@dataclass(frozen=True)
class Learner:
    """All that a training changes."""

    network: DualPath  # its weights, and the statistics of its normalisation
    optimiser: Optimiser  # of its weights
    rates: Rates  # learning rates

    def save(self, output: Path, done: int) -> Path:
        """Publish a checkpoint; the last two are kept.

        Raises:
            TrainingFault: a weight is not finite.
            EnvironmentFault: the disk refuses.
        """
        for name, tensor in self.network.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise TrainingFault(
                    f"{output}: after epoch {done}, {name} has values that are not finite, "
                    "expected numbers; lower learningRate. The last checkpoint is whole"
                )
        nets, optimisers = {_NAME: self.network}, {_NAME: self.optimiser}
        return checkpoint.save(
            output / FOLDER,
            done,
            checkpoint.collect(nets, {}, optimisers),
            self.network.state_dict(),
            {"epochs": done, "rates": self.rates.to_json()},
        )

    def resume(self, output: Path, done: int) -> tuple[int, list[str]]:
        """Go on from the newest whole checkpoint of so many epochs at most.

        Returns:
            Epochs that are really done, and what is to be said of damaged checkpoints.

        Raises:
            UsageFault: a training would begin where there is one.
            IntegrityFault: there is no whole checkpoint, or it is of another network.
        """
        folder = output / FOLDER
        there = sorted(folder.glob("step-*"), reverse=True)
        if done == 0:
            _refuse_present(folder, there)
            return 0, []
        damaged: list[str] = []
        for path in there:
            if path.name > f"step-{done:08d}":
                continue  # of an epoch that the record knows nothing of; it comes again
            try:
                state: Mapping[str, Any] = read_json(path / checkpoint.STATE)
                tensors = checkpoint.load_tensors(
                    path / checkpoint.TENSORS, state["sha256"][checkpoint.TENSORS]
                )
            except (GansynthError, OSError, ValueError, KeyError, TypeError) as error:
                damaged.append(f"checkpoint {path.name} is damaged and was passed over: {error}")
                continue
            optimizers = {_NAME: self.optimiser}
            checkpoint.restore(tensors, {_NAME: self.network}, {}, optimizers, path)
            self.rates.resume(state["rates"])
            return int(state["epochs"]), damaged
        raise IntegrityFault(
            f"{folder}: no whole checkpoint of {done} epoch(s) or fewer"
            f"{''.join(f'; {said}' for said in damaged)}, expected one; restore it from a backup, "
            "or start anew in another folder"
        )


def _refuse_present(folder: Path, there: Sequence[Path]) -> None:
    if there:
        raise UsageFault(
            f"{folder}: holds {there[0].name}, expected no checkpoint where a training begins; go "
            "on with it (--set resume=yes), or choose another -o"
        )


def load_network(network: DualPath, output: Path) -> int:
    """Put the weights of a folder's newest whole checkpoint into a network.

    Returns:
        Epochs that it was trained for.

    Raises:
        UsageFault: there is none.
        IntegrityFault: all are damaged, or of another network.
    """
    found = checkpoint.latest(output / FOLDER)
    if found is None:
        raise UsageFault(f"{output / FOLDER}: no checkpoint, expected a trained network")
    checkpoint.restore(
        {name: tensor for name, tensor in found.tensors.items() if name.startswith("net/")},
        {_NAME: network},
        {},
        {},
        found.folder,
    )
    return int(found.state["epochs"])
