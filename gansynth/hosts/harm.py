"""Will it harm? Samples beside training cases, and the host's own Dice, before hours are spent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.adapter import Adapter
from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.progress import Reporter

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler

GAINED = 0.46
"""Dice of real cases alone above which no draw gained (4 of 8 draws of breast ultrasound)."""
CEILING = (
    ": near what the host can reach, expect nothing (breast ultrasound: samples gained in 4 of 4 "
    f"draws below {GAINED}, in 0 of 4 above; gliomas still gained at 0.61)"
)


def will_it_harm(
    adapter: Adapter, mix_config: MixConfig, sampler: Sampler | None, reporter: Reporter
) -> dict[str, Any]:
    """Return ``lines`` on samples beside training cases, and their figures; nothing is refused.

    ``sampler``: of the samples; None for those of a bank, and without samples.
    """
    from gansynth.bank.stored_samples import check_bank
    from gansynth.sampling.sample_check import check_run

    if mix_config.ratio.p == 0:
        return {"lines": []}
    try:
        if mix_config.bank is not None:
            return check_bank(mix_config.bank, adapter.source, reporter)
        assert sampler is not None, "samples are of a generator or a bank"
        return check_run(sampler, reporter)
    except GansynthError as fault:
        return {"lines": [f"samples and training cases are not compared: {fault}"]}


def real_alone(adapter: Adapter, request: TrainingRequest) -> dict[str, Any]:
    """Return Dice and folder of a finished training on real cases alone, in words; empty if none.

    It is one of ``augment --ratio 1:0`` or of ``--compare``, with the settings of ``request``.
    """
    from gansynth.metrics.segmentation.evaluation import evaluate
    from gansynth.metrics.segmentation.regions import FOREGROUND

    key, own, mixed = adapter.Options.place, dict(request.settings), request.mix_config
    output = own.pop(key, None)
    beside = {} if output is None else {key: str(Path(output).parent / "without")}
    real = replace(mixed, ratio=Ratio(1, 0), schedule=Schedule())
    plain = replace(real, run=None, bank=None, frozen=False, samples=SampleRequest(seed=mixed.seed))
    for place, mix_config in product(({}, beside), (real, plain)):
        asked = replace(request, settings={**own, **place}, mix_config=mix_config)
        with suppress(GansynthError):  # another training, or a host without label maps
            host = type(adapter)(adapter.source)
            folder = host.training_folder(asked)
            if folder is None or not folder.finished:
                continue
            schema, judged = host.schema, host.judged(folder.path)
            regions = ((FOREGROUND, schema.foreground),)
            found = evaluate(judged, regions, measures=("dice",), ignore=schema.ignore).document()
            if (dice := found["dice"][FOREGROUND]) is None:
                continue
            words = f"real cases alone: Dice {dice:.2f} of held-out cases, in {folder.path}"
            words += CEILING if dice > GAINED else ""
            return {"dice": dice, "folder": str(folder.path), "words": words}
    return {}
