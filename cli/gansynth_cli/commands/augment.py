"""``gansynth augment``: train a host framework with samples mixed in at a ratio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.errors import TrainingFault
from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    edit_option,
    examples,
    refuse_unknown,
    set_option,
    summary,
    with_output,
    with_source,
)

if TYPE_CHECKING:
    from gansynth.adapter import Adapter, Injection, Outcome
    from gansynth.sources.base import SourceRequest

TOLERATED = 0.01
"""Largest share of missing synthetic samples that is still a success."""


@click.command(
    epilog=examples(
        "gansynth augment --target nnunet --data nnunet:004 -c 3d_fullres --fold 0 "
        "--generator runs/g0 --ratio 1:1",
        "gansynth augment --target nnunet --data nnunet:004 -c 3d_fullres --generator runs/g0 "
        "--ratio 2:1 --set num_epochs=100 -- --npz",
    )
)
@click.option("--target", required=True, help="Host framework, e.g. nnunet.")
@with_source
@click.option(
    "--generator", "run", required=True, type=FOLDER, metavar="RUN", help="Run of gansynth fit."
)
@click.option("--ratio", required=True, metavar="R:S", help="Real to synthetic samples, e.g. 1:1.")
@click.option("--frozen", is_flag=True, help="Fill the bank once, instead of on the fly.")
@click.option(
    "--bank-samples",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples in the bank.",
)
@click.option("--bank", type=FOLDER, help="Draw from this existing bank; make none.")
@click.option("--strict", is_flag=True, help="Stop at the first missing synthetic sample.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seeds labels and latents.",
)
@edit_option
@device_option
@set_option
@dry_run_option
@click.argument("options", nargs=-1, metavar="[-- HOST OPTIONS]")
@with_output
def command(
    target: str,
    request: SourceRequest,
    run: Path,
    ratio: str,
    frozen: bool,
    bank_samples: int,
    bank: Path | None,
    strict: bool,
    seed: int,
    edits: tuple[str, ...],
    device: str,
    settings: dict[str, str],
    dry_run: bool,
    options: tuple[str, ...],
    out: Output,
) -> None:
    """Train a host framework with samples mixed in at a ratio.

    The host stays as it is installed, and validates on real cases only. A generator that has seen a
    held-out case, or shares a subject with one, is refused (exit 6). Where a sample is missing a
    real case takes its place, counted; more than 1 % of that ends in exit 5, after training.
    --set changes settings of the host; what follows -- goes to the host's own command line.
    """
    from gansynth.adapter import Injection
    from gansynth.ratio import Ratio
    from gansynth.registry import installed

    injection = Injection(
        run=run,
        ratio=Ratio.parse(ratio),
        frozen=frozen,
        bank_samples=bank_samples,
        bank=bank,
        edits=edits,
        seed=seed,
        device=device,
        strict=strict,
    )
    cls = installed().adapter(target)
    refuse_unknown(settings, cls.settings, of=target)
    adapter = cls(installed().open_source(request))
    adapter.validate()
    adapter.check(injection, settings, options)
    if dry_run:
        planned = plan(adapter, injection, settings, options)
        out.result(planned, summary(planned))
        return
    outcome = adapter.start(injection, settings, options)
    document = describe(outcome, injection)
    out.result(document, summary(document))
    judge(outcome)


def plan(
    adapter: Adapter, injection: Injection, settings: Mapping[str, str], options: tuple[str, ...]
) -> dict[str, Any]:
    """What ``start`` would do, once ``check`` has passed."""
    source = adapter.source
    clean = "none: no held-out case, subject or content was seen"
    return {
        "dry_run": True,
        "target": adapter.name,
        "data": source.name,
        "fold": source.fold,
        "training_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
        "generator": str(injection.run),
        "ratio": str(injection.ratio),
        "synthetic_share": injection.ratio.p,
        "bank": _bank_text(injection),
        "seed": injection.seed,
        "settings": dict(settings),
        "host_options": list(options),
        "leakage": clean if injection.ratio.p > 0 else "none: no synthetic sample is drawn",
    }


def _bank_text(injection: Injection) -> str:
    if injection.bank is not None:
        return f"{injection.bank} (existing)"
    kind = "frozen" if injection.frozen else "kept fresh while the host trains"
    return f"{injection.bank_samples} samples, {kind}"


def describe(outcome: Outcome, injection: Injection) -> dict[str, Any]:
    """An outcome as a JSON document."""
    return {
        "folder": str(outcome.folder),
        "ratio": str(injection.ratio),
        "drawn_real": outcome.drawn_real,
        "drawn_synthetic": outcome.drawn_synthetic,
        "realised_synthetic_share": outcome.realised,
        "fell_back": outcome.fell_back,
        "metrics_on_real_cases": dict(outcome.metrics),
    }


def judge(outcome: Outcome) -> None:
    """Refuse to call a training a success that missed too many synthetic samples.

    Raises:
        TrainingFault: more than 1 % of the synthetic samples asked for were missing.
    """
    asked = outcome.drawn_synthetic + outcome.fell_back
    missing = outcome.fell_back / max(1, asked)
    if missing > TOLERATED:
        why = max(outcome.reasons, key=lambda reason: outcome.reasons[reason], default="")
        raise TrainingFault(
            f"{outcome.folder}: training finished and its results are kept, but "
            f"{outcome.fell_back} of {asked} synthetic samples were missing ({missing:.1%}"
            f"{f', {why}' if why else ''}) and real cases took their place; expected at most "
            f"{TOLERATED:.0%}. Give the generator a faster --device, or fill the bank first with "
            "--frozen"
        )
