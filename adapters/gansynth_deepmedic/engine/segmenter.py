"""The dual-path network as a generator for gansynth's training loop, and its checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import (
    Batch,
    Generator,
    GeneratorOptions,
    Phase,
    TrainingStep,
    channels_last,
)
from gansynth.core.schema import Condition, Sample, Schema
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.training import checkpoint
from gansynth_deepmedic.engine.configs import ModelConfig
from gansynth_deepmedic.engine.infer import placed
from gansynth_deepmedic.engine.network import DualPath
from gansynth_deepmedic.engine.optimiser import Optimiser, Rates
from gansynth_deepmedic.engine.segments import SubepochSegments
from gansynth_deepmedic.engine.settings import EngineSettings
from gansynth_deepmedic.source import _class_labels as class_labels

CHECKPOINTS = "checkpoints"
NETWORK = "network"  # name of the network and of its player in checkpoints
_DONE = "memory/rates/done"  # tensor of a checkpoint with the epochs done


@dataclass
class SegmentBatch(Batch):
    """Segments (``image``) and the labels of their predicted part (``labels``)."""

    low: tuple[Tensor, ...] = ()  # their surroundings (B, C, X, Y, Z) for each subsampled path
    held: SubepochSegments | None = None  # to validate on, before the first batch of a subepoch

    @classmethod
    def of(cls, items: Mapping[str, Tensor], held: SubepochSegments | None = None) -> SegmentBatch:
        """Copy a batch of ``DeepMedicSegments.batch``."""
        low = (value.clone() for name, value in items.items() if name.startswith("low_"))
        return cls(items["high"].clone(), items["labels"], low=tuple(low), held=held)

    def to(self, device: torch.device) -> SegmentBatch:
        """Return the batch on a device."""
        assert self.labels is not None
        low = tuple(placed(part, device) for part in self.low)
        high, labels = placed(self.image, device), self.labels.to(device, non_blocking=True)
        return SegmentBatch(high, labels, low=low, held=self.held)


class DualPathSegmenter(Generator):
    """The dual-path network as a generator for the training loop."""

    name: ClassVar[str] = "deepmedic"
    capabilities = Capabilities(
        compiles=(),
        remedies={
            "not finite": "Look for extreme intensities in the images, or lower learningRate of "
            "the configuration"
        },
    )

    def __init__(
        self,
        model: ModelConfig,
        settings: EngineSettings,
        loss: Callable[[TrainingStep], Mapping[str, Tensor]],
    ) -> None:
        self.model, self.how, self._loss = model, settings.optimisation, loss
        self.rates = Rates(settings.rates, self.how.rate, self.how.momentum)
        channels = tuple(f"channel {number}" for number in range(model.channels))
        schema = Schema(channels, class_labels(model.classes), (1.0, 1.0, 1.0))
        super().__init__(schema, model.segment, GeneratorOptions())
        self.buffers["rates"] = self.rates

    @property
    def network(self) -> DualPath:
        """The network itself."""
        network = self.nets[NETWORK]
        assert isinstance(network, DualPath)
        return network

    def networks(self) -> dict[str, nn.Module]:
        """The dual-path network alone, in the layout of fastest convolutions."""
        network = DualPath(self.model)
        channels_last(network, 3)
        return {NETWORK: network}

    def phases(self) -> Sequence[Phase]:
        """Return one phase with one player."""
        return [Phase(NETWORK, self._loss)]

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """DeepMedic's own."""
        self.optimiser = Optimiser(parameters, self.network.convolved(), self.how)
        return self.optimiser

    def set_epoch(self, at: float) -> float:
        """Set the momentum after ``at`` epochs, and return the factor of the learning rate."""
        for group in self.optimiser.param_groups:
            group["momentum"] = self.rates.momentum(at)
        return self.rates.rate(at) / self.rates.first if self.rates.first else 1.0

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Not implemented: ``infer.Predictor`` segments whole volumes."""
        raise NotImplementedError


def epochs_of(saved: checkpoint.Checkpoint) -> int:
    """Return the epochs done by a checkpoint."""
    return int(saved.tensors[_DONE])


def go_on(folder: Path, done: int, say: Callable[[str], None]) -> int:
    """Keep the newest whole checkpoint of at most ``done`` epochs, and delete later ones.

    Args:
        done: number of epochs; 0 begins a training.

    Returns:
        The epochs done by the checkpoint.
    """
    if done == 0:
        shutil.rmtree(folder, ignore_errors=True)  # the record knows nothing of a first epoch
        return 0
    why = ""
    try:
        newest = checkpoint.latest(folder, lambda saved: epochs_of(saved) <= done)
    except IntegrityFault as fault:
        newest, why = None, f"; {fault}"
    if newest is None:
        raise IntegrityFault(
            f"{folder}: no whole checkpoint of {done} epoch(s) or fewer{why}, expected one; "
            "restore it from a backup, or start anew in another folder"
        )
    for text in newest.passed_over:
        name, _, error = text.partition(": ")
        say(f"gansynth: WARNING: checkpoint {name} is damaged and was skipped: {error}")
    for path in folder.glob("step-*"):
        if path.name > newest.folder.name:
            shutil.rmtree(path, ignore_errors=True)  # the record knows nothing of it
    return epochs_of(newest)


def load_network(network: DualPath, output: Path) -> None:
    """Load the weights of a folder's newest whole checkpoint into a network.

    Raises:
        UsageFault: no checkpoint.
        IntegrityFault: all checkpoints are damaged, or of another network.
    """
    newest = checkpoint.latest(output / CHECKPOINTS, lambda saved: epochs_of(saved) > 0)
    if newest is None:
        raise UsageFault(f"{output / CHECKPOINTS}: no checkpoint, expected a trained network")
    weights = {name: tensor for name, tensor in newest.tensors.items() if name.startswith("net/")}
    checkpoint.restore(weights, {NETWORK: network}, {}, {}, newest.folder)
