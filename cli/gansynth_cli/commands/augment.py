"""``gansynth augment``: train a target framework with samples mixed in at a ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import refuse_unknown
from gansynth_cli.augment_options import (
    NEEDS,
    check_options,
    data_set_name,
    host_data,
    host_settings,
    nearest_option,
    run_export,
    warn_of_idle,
)
from gansynth_cli.common import (
    FILE,
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    examples,
    say_device,
    set_option,
    summary,
    with_host_data,
    with_output,
    with_samples,
)
from gansynth_cli.results import lines_of_training
from gansynth_cli.typed_options import with_needs

if TYPE_CHECKING:
    from pathlib import Path

    from gansynth.core.adapter import Adapter, Content, MixConfig


@click.command(
    epilog=examples(
        "gansynth augment --target nnunet --generator runs/g0 --ratio 1:1 --dry-run",
        "gansynth augment --target yolo --data yolo:data.yaml --generator runs/g1 "
        "--ratio 2813:4000 --set epochs=100 -- mosaic=0.5",
    )
)
@with_needs(NEEDS)
@click.option(
    "--target", required=True, help="Framework to train: nnunet, deepmedic, yolo, segmenter."
)
@with_host_data
@click.option(
    "--detector",
    metavar="NAME",
    help="With --target yolo: libreyolo (MIT, the default) or ultralytics (AGPL-3.0).",
)
@click.option(
    "--engine",
    metavar="NAME",
    help="With --target deepmedic, the engine on the fly: deepmedic (a checkout) or torch.",
)
@click.option(
    "--deepmedic",
    type=FOLDER,
    metavar="FOLDER",
    help="Checkout of DeepMedic to train with, unmodified; else GANSYNTH_DEEPMEDIC.",
)
@click.option(
    "--deepmedic-python",
    type=FILE,
    metavar="FILE",
    help="Python with DeepMedic's TensorFlow; else GANSYNTH_DEEPMEDIC_PYTHON, else gansynth's own.",
)
@click.option("--generator", "run", type=FOLDER, metavar="RUN", help="Run of gansynth fit.")
@click.option("--ratio", required=True, metavar="R:S", help="Real to synthetic samples, e.g. 1:1.")
@click.option(
    "--schedule",
    default="constant",
    metavar="WHEN",
    help="How the ratio changes: constant, anneal:50%-100%, or finetune:10%@80% (only synthetic "
    "for 80 % of the training, then only 10 % of the real cases).",
)
@click.option("--bank", type=FOLDER, help="Use this existing sample bank; make none.")
@click.option(
    "--offline", "frozen", is_flag=True, help="Fill the sample bank once, instead of on the fly."
)
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
@click.option(
    "--bank-dir", "scratch", type=FOLDER, help="Folder for the bank, instead of shared memory."
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Restarts in a row of a producer that died.",
)
@click.option("--strict", is_flag=True, help="Stop at the first missing synthetic sample.")
@click.option(
    "--allow-empty-bank", "keep_going", is_flag=True, help="Start even without a synthetic sample."
)
@click.option(
    "--host-augmentation/--no-host-augmentation",
    "usual_augmentation",
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
    help="Resample the real training cases to the generator's space too (deepmedic).",
)
@click.option(
    "--export",
    metavar="DatasetNNN_NAME",
    help="Train nothing: write a data set of that name for stock nnU-Net.",
)
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Train nothing: write a new folder for stock YOLO detectors, or for stock DeepMedic. "
    "With --engine, --deepmedic or --target segmenter: folder of the results.",
)
@click.option(
    "--content",
    type=click.Choice(["mixed", "synthetic"]),
    help="With --export or -o: real and synthetic cases for training (default), or only "
    "synthetic ones, to share.",
)
@nearest_option
@with_samples("Seeds labels, latents and slots.")
@device_option
@set_option
@dry_run_option
@click.argument("options", nargs=-1, metavar="[-- HOST OPTIONS]")
@with_output
def command(
    target: str,
    data: str | None,
    reading: Mapping[str, Any],
    run: Path | None,
    settings: dict[str, str],
    dry_run: bool,
    options: tuple[str, ...],
    export: str | None,
    output: Path | None,
    content: Content | None,
    detector: str | None,
    engine: str | None,
    deepmedic: Path | None,
    deepmedic_python: Path | None,
    out: Output,
    **how: Any,
) -> None:
    """Train a target framework with samples mixed in at a ratio.

    The target is the framework you train, e.g. nnU-Net. Data set, configuration, plans and fold
    are those of the generator's fit, unless others are given.

    The framework stays as installed, and validates on real cases only. A generator that has seen a
    held-out case, or shares a subject with one, is refused (exit 6). A real case replaces a missing
    sample, and is counted; more than 1 % of them is exit 5, after training. Where the schedule
    allows no real case, training waits for the sample, five minutes unless GANSYNTH_PATIENCE
    sets other seconds. Then it stops with exit 5. --set changes settings of the framework. Options
    after -- go to the framework's own command line.
    """
    from gansynth.core.registry import installed
    from gansynth.core.run_folder import RunFolder
    from gansynth.hosts.checks import plan_training
    from gansynth.sampling.run_source import open_resolved

    generator = None if run is None else RunFolder(run)
    mix_config = injection_from({**how, "run": generator})
    cls = installed().adapter(target)
    refuse_unknown(settings, cls.Options.model_fields, of=target)
    request, taken = host_data(data, reading, generator)  # reads the run folder
    warn_of_idle(mix_config, out)
    if taken:
        out.reporter.say(f"as {run} was fitted: {taken}")
    settings, output = host_settings(
        *(settings, cls.Options.model_fields, target),
        {
            "detector": detector,
            "engine": engine,
            "deepmedic": deepmedic,
            "python": deepmedic_python,
        },
        output=output,
        options=options,
        exports=cls.exports != "nothing",
    )
    check_options(export, output, content)
    adapter = cls(open_resolved(request, by_user="data " not in taken))
    adapter.check_ways(mix_config)
    if export is not None or output is not None:
        name = data_set_name(adapter, export, output)
        run_export(adapter, mix_config, name, content, dry_run=dry_run, out=out)
        return
    say_device(mix_config.device, out)
    adapter.validate()
    adapter.check(mix_config, settings, options)
    _warn_of_run(mix_config, out)
    if dry_run:
        planned = plan_training(adapter, mix_config, settings, options)
        out.result(planned, summary(planned))
        return
    _learn_filters(adapter, mix_config, out)
    training_result = adapter.start(mix_config, settings, options)
    for warning in training_result.warnings:
        out.reporter.warn(warning)
    document = training_result.describe(mix_config)
    labels = adapter.source.schema.labels
    out.result(document, lines_of_training(document, adapter.name, labels))
    training_result.refuse_missing()


def _warn_of_run(mix_config: MixConfig, out: Output) -> None:
    """Repeat the warnings of the generator's fit."""
    from gansynth.fitting.label_report import warn_of_label_maps

    if mix_config.run is not None and mix_config.ratio.p > 0:
        warn_of_label_maps(mix_config.run.folder, out.reporter)


def _learn_filters(adapter: Adapter, mix_config: MixConfig, out: Output) -> None:
    """Train filters now, with progress, and not in the producer."""
    from gansynth.sampling.filters.pretrain import learn_ahead

    if mix_config.ratio.p > 0:
        learn_ahead(
            mix_config.run,
            mix_config.samples.filters,
            adapter.source,
            target=adapter.name,
            device=mix_config.device,
            reporter=out.reporter,
        )


def injection_from(how: Mapping[str, Any]) -> MixConfig:
    """Return how samples are mixed in, from the options.

    Raises:
        UsageFault: names the wrong option.
    """
    from gansynth.core.adapter import MixConfig
    from gansynth.core.bank_options import BankSize, RefreshPolicy
    from gansynth.core.ratio import Ratio
    from gansynth.core.schedule import Schedule

    read = dict(how)
    pacing = RefreshPolicy.parse(read.pop("reuse"), read.pop("refresh"), read.pop("overhead"))
    return MixConfig(
        ratio=Ratio.parse(read.pop("ratio")),
        schedule=Schedule.parse(read.pop("schedule")),
        size=BankSize.parse(read.pop("bank_size")),
        pacing=pacing,
        augment_synthetic=read.pop("augment_synthetic") == "yes",
        **read,
    )
