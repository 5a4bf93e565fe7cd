"""What an nnU-Net training wants of its bank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gansynth.bank.supply import Demand
from gansynth.core.adapter import Injection
from gansynth_nnunet.bank_size import sample_bytes
from gansynth_nnunet.foreign_guard import drawn_size
from gansynth_nnunet.guards import host_size

if TYPE_CHECKING:
    from gansynth_nnunet.origin import Origin
    from gansynth_nnunet.session import Training


def demand_of(injection: Injection, training: Training, origin: Origin | None) -> Demand:
    """What a training wants of a ``Supply``; its rank 0 asks.

    Args:
        injection: what is mixed in, and how.
        training: into this.
        origin: where samples come from; None if nothing synthetic is drawn.
    """
    manifest = None if origin is None else origin.manifest
    return Demand(
        injection=injection,
        target="nnunet",
        request={} if origin is None else origin.source.request.to_json(),
        run_id=None if manifest is None else str(manifest["run_id"]),
        cases=len(training.train_ids),
        sample_bytes=0 if origin is None else _sample_bytes(training, origin),
        batch_size=training.batch_size,
        samples=training.epochs * training.batches * training.batch_size * training.ranks,
        output=training.output,
        say=training.say,
        dtype=training.dtype,
        progress=training.progress,
        ranks=training.ranks,
        gpus=training.gpus,
    )


def _sample_bytes(training: Training, origin: Origin) -> int:
    if origin.manifest is None:  # an existing bank: none is made
        return 0
    size = host_size(drawn_size(origin.manifest, origin.source) or training.patch)
    width = np.dtype(training.dtype).itemsize
    cascaded = origin.source.is_cascaded
    keys = len(training.keys)
    return sample_bytes(size, training.patch, training.channels, width, keys, cascaded=cascaded)
