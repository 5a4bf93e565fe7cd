"""``gansynth augment``: train a target framework with samples mixed in at a ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth_cli.common import (
    FOLDER,
    Hint,
    Output,
    device_option,
    dry_run_option,
    examples,
    set_option,
    summary,
    with_host_data,
    with_output,
    with_samples,
)
from gansynth_cli.help import SettingsCommand, complete_names, typed_options
from gansynth_cli.results import lines_of_training

if TYPE_CHECKING:
    from gansynth.core.adapter import HostOptions
    from gansynth.hosts.api import Augmented


def options_of_target(typed: Mapping[str, Any]) -> dict[str, type[HostOptions]]:
    """Return the options of the target that is typed."""
    from gansynth.core.registry import installed

    name = typed.get("target")
    return {} if name is None else {f"Options of {name}": installed().adapter(name).Options}


@click.command(
    cls=SettingsCommand,
    models=options_of_target,
    epilog=examples(
        "gansynth augment --target nnunet --generator runs/g0 --ratio 1:1 --dry-run",
        "gansynth augment --target yolo --data yolo:data.yaml --generator runs/g1 "
        "--ratio 2813:4000 --epochs 100 -- mosaic=0.5",
    ),
)
@click.option(
    "--target",
    required=True,
    is_eager=True,  # so that --target NAME --help shows the options of NAME
    shell_complete=complete_names("adapters"),
    help="Framework to train, see gansynth plugins; its options: --target NAME --help.",
)
@with_host_data
@click.option("--generator", type=FOLDER, metavar="RUN", help="Run of gansynth fit.")
@click.option("--ratio", required=True, metavar="R:S", help="Real to synthetic samples, e.g. 1:1.")
@click.option(
    "--schedule",
    default="constant",
    metavar="WHEN",
    help="How the ratio changes: constant, anneal:50%-100%, or finetune:10%@80% (only synthetic "
    "for 80 % of the training, then only 10 % of the real cases).",
)
@click.option("--bank", type=FOLDER, help="Use this existing sample bank; make none.")
@click.option("--offline", is_flag=True, help="Fill the sample bank once, instead of on the fly.")
@click.option(
    "--bank-size",
    default="64",
    show_default=True,
    metavar="SIZE",
    help="Samples in the bank; 3x: three for each training case; 2GB: bytes.",
)
@click.option("--reuse", metavar="N", help="Mean number of uses of a sample before it is replaced.")
@click.option("--refresh", metavar="TIME", help="Time in which the whole bank is replaced: 10min.")
@click.option(
    "--overhead",
    metavar="N%",
    help="Most slowdown of the training by the producer, whose pace is measured and adapted "
    "(default 2%).",
)
@click.option("--bank-dir", type=FOLDER, help="Folder for the bank, instead of shared memory.")
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Restarts in a row of a producer that died.",
)
@click.option("--strict", is_flag=True, help="Stop at the first missing synthetic sample.")
@click.option("--allow-empty-bank", is_flag=True, help="Start even without a synthetic sample.")
@click.option(
    "--host-augmentation/--no-host-augmentation",
    default=True,
    help="Keep the framework's own augmentation (default), or train without.",
)
@click.option(
    "--augment-synthetic",
    type=click.Choice(["yes", "no"]),
    default="yes",
    show_default=True,
    help="Apply the framework's augmentation to synthetic samples too.",
)
@click.option(
    "--real-in-generator-space",
    is_flag=True,
    help="Resample the real training cases to the generator's space too, if the target can.",
)
@click.option(
    "--export",
    metavar="NAME",
    help="Train nothing: write a data set for the stock framework, of that name or, for frameworks "
    "without names of data sets, in a new folder.",
)
@click.option(
    "-o",
    "--out",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the training's results.",
)
@click.option(
    "--content",
    type=click.Choice(["mixed", "synthetic"]),
    help="With --export: real and synthetic cases for training (default), or only "
    "synthetic ones, to share.",
)
@click.option(
    "--nearest",
    is_flag=True,
    help="With --export: round a ratio that cannot be exact to the nearest possible one.",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Train with samples, then without, equally many steps; print both results.",
)
@with_samples("Seeds labels, latents and slots.", read=dict)
@device_option
@set_option
@dry_run_option
@click.argument("options", nargs=-1, metavar="[-- HOST OPTIONS]")
@with_output
def command(
    folder: Path | None,
    reading: Mapping[str, Any],
    samples: Mapping[str, Any],
    settings: Mapping[str, str],
    out: Output,
    **words: Any,
) -> None:
    """Train a target framework with samples mixed in at a ratio.

    The target is the framework you train, e.g. nnU-Net. Data set, configuration, plans and fold
    are those of the generator's fit, unless others are given.

    The framework stays as installed, and validates on real cases only. A generator that has seen a
    held-out case, or shares a subject with one, is refused (exit 6). A real case replaces a missing
    sample, and is counted; more than 1 % of them is exit 5, after training. Where the schedule
    allows no real case, training waits for the sample, five minutes unless GANSYNTH_PATIENCE
    sets other seconds. Then it stops with exit 5. Options of the framework are flags, or follow
    --set as KEY=VALUE. Options after -- go to the framework's own command line.
    """
    from gansynth.hosts.api import run_augment

    words |= {**reading, **samples, "out": folder, "set": settings}
    typed = typed_options(click.get_current_context())
    given = ["out" if name == "folder" else name for name in typed]
    given += ["settings"] if settings else []  # also as flags
    done = run_augment(words, given, out.reporter)
    out.result(done.document, lines_of_augment(done))
    done.refuse_missing()


def lines_of_augment(done: Augmented) -> Iterator[str]:
    """Yield what was trained, written or planned; of a comparison both, and what it proves."""
    if done.control is not None:
        for name, arm in {"without": done.control, "with": done}.items():
            yield f"-- {name} samples"
            lines = lines_of_augment(replace(arm, document=done.document[name], control=None))
            yield from (line for line in lines if not isinstance(line, Hint))
        yield from filter(None, [done.document.get("sentence")])
        yield f"warning: {done.document['warning']}:"
        yield from ("", *done.document["plan"].splitlines())
    elif done.result is None:
        harm = done.document.get("will_it_harm") or {}
        yield from summary({k: v for k, v in done.document.items() if k != "will_it_harm"})
        yield from ["", "will it harm?", *harm["lines"]] if harm.get("lines") else []
        yield from [harm["real_alone"]["words"]] if harm.get("real_alone") else []
        if (folder := done.document.get("folder")) and not done.document.get("dry_run"):
            yield Hint(f"next: train on {folder} with your framework, without gansynth")
    else:
        labels = done.adapter.source.schema.labels
        yield from lines_of_training(done.document, done.adapter.name, labels)
