"""How options of ``gansynth augment`` combine: engines, exports, baselines, data."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault
from gansynth_cli.common import Output, summary
from gansynth_cli.typed_options import called, refuse_others, typed, typed_options

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter, Content, MixConfig
    from gansynth.core.bank_options import BankSize
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import SourceRequest

CHECKOUT = "GANSYNTH_DEEPMEDIC"
"""Variable with the checkout of DeepMedic, used without ``--deepmedic``."""
ENGINE = "engine"
NO_ENGINES = "has no engines to choose from, expected --target deepmedic"
OPTIONS = {
    "detector": ("--detector", "is no detector, expected --target yolo"),
    ENGINE: ("--engine", NO_ENGINES),
    "deepmedic": ("--deepmedic", NO_ENGINES),
    "python": ("--deepmedic-python", NO_ENGINES),
}
"""Setting -> its option, and the message for a framework without that setting."""


def host_settings(
    settings: Mapping[str, str],
    keys: Container[str],
    target: str,
    host_options: Mapping[str, str | Path | None],
    *,
    output: Path | None,
    options: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    exports: bool = True,
) -> tuple[dict[str, str], Path | None]:
    """Merge options into the settings of a framework, and find where a data set is written.

    A framework with several engines trains if one is chosen; ``-o`` is then the folder of results.
    Without an engine, ``-o`` is the new data set, which any engine can train on. If the framework
    writes no data sets, ``-o`` is always the folder of results.

    Args:
        keys: settings of the target.
        host_options: key of ``OPTIONS`` -> value of that option, None if not given.
        options: arguments after ``--``.

    Returns:
        Settings, and the folder of ``-o`` if a data set is written.

    Raises:
        UsageFault: an option that the target does not have, or two that contradict.
    """
    merged = dict(settings)
    for key, value in host_options.items():
        option, why = OPTIONS[key]
        if value is not None and key not in keys:
            raise UsageFault(f"{option} {value}: {target} {why}; leave it out")
        _put(merged, key, value, option)
    if ENGINE in keys:
        _choose_engine(merged, options, environ)
    trains = ENGINE in merged if ENGINE in keys else not exports and "output" in keys
    if not trains:
        return merged, output
    _put(merged, "output", output, "-o")
    return merged, None


def _choose_engine(
    settings: dict[str, str], options: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Set the engine that other options imply."""
    if ENGINE in settings:
        return
    if "deepmedic" in settings or (options and environ.get(CHECKOUT)):
        settings[ENGINE] = "deepmedic"
    elif options:
        raise UsageFault(
            f"-- {options[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "for DeepMedic, or to train with --engine torch, leave out what follows --"
        )


def _put(settings: dict[str, str], key: str, value: str | Path | None, option: str) -> None:
    """Set one more key; refuse another value of a key that is set already."""
    if value is not None and settings.setdefault(key, str(value)) != str(value):
        raise UsageFault(
            f"{option} {value} and --set {key}={settings[key]}: expected one of them; leave the "
            "other out"
        )


SOURCE = ("data", "configuration", "plans", "fold", "subjects", "read", "root")
SAMPLES = ("run", "ratio", "bank", "bank_size", "restarts", "seed", "edits", "device")
REAL = ("real_in_generator_space", "nearest")
ASKED = ("boxes", "conditions", "how", "lesions", "weights", "filters")
SAYING = ("target", "export", "output", "content", "dry_run", "as_json", "quiet", "debug")
MEANT = frozenset((*SOURCE, *SAMPLES, *REAL, *ASKED, *SAYING))
"""Options that an export uses; every other one is about training."""


def run_export(
    adapter: Adapter,
    mix_config: MixConfig,
    name: str,
    content: Content | None,
    *,
    dry_run: bool,
    out: Output,
) -> None:
    """Export a data set, and print the report.

    Raises:
        GansynthError: the adapter refuses the export.
    """
    document: Mapping[str, Any] = adapter.export(
        mix_config,
        name,
        content=content or "mixed",
        size=asked_size(mix_config),
        dry_run=dry_run,
        reporter=out.reporter,
    )
    if dry_run and mix_config.run and mix_config.bank is None and mix_config.ratio.p > 0:
        from gansynth.hosts.checks import seconds_of_a_sample

        each = round(seconds_of_a_sample(adapter, mix_config), 3)
        document = {**document, "seconds_per_sample": each, "memory": "not measured"}
    out.result(document, summary(document))


def data_set_name(adapter: Adapter, export: str | None, output: Path | None) -> str:
    """Return the name of the new data set, as the target framework needs it.

    Raises:
        UsageFault: the framework needs another option, or writes no data sets.
    """
    option = f"--export {export}" if output is None else f"-o {output}"
    if adapter.exports == "nothing":
        raise UsageFault(
            f"{option}: {adapter.name} has no data sets to write; expected a target that has, "
            "such as nnunet, deepmedic or yolo. Leave it out to train with samples mixed in"
        )
    if output is None and adapter.exports == "folder":
        raise UsageFault(
            f"{option}: {adapter.name} has no list of data sets to add a name to, expected -o "
            "DIR, a new folder; use that instead"
        )
    if output is not None and adapter.exports == "name":
        raise UsageFault(
            f"{option}: {adapter.name} finds data sets by name in its own folders, expected "
            "--export DatasetNNN_Name; use that instead"
        )
    return str(export if output is None else output)


def asked_size(mix_config: MixConfig) -> BankSize | None:
    """Return ``--bank-size``, if it was given."""
    return mix_config.size if "bank_size" in typed_options(click.get_current_context()) else None


def check_options(export: str | None, output: Path | None, content: str | None) -> None:
    """Refuse options that an export would ignore, and ``--content`` without an export.

    Raises:
        UsageFault: names the first such option.
    """
    if export is None and output is None:
        if content is not None:
            raise UsageFault(
                f"--content {content}: expected --export DatasetNNN_Name or -o DIR beside it; "
                "without one, samples are mixed in at --ratio during training"
            )
        return
    if export is not None and output is not None:
        raise UsageFault(
            f"--export {export} with -o {output}: one says where the data set goes, expected "
            "--export for nnunet or -o for yolo and deepmedic; leave one out"
        )
    option = "--export" if output is None else "-o"
    why = "nothing is trained, expected only options of the samples to write"
    refuse_others(MEANT, f"{option} with {{}}: {why}; leave it out")


NEEDS = {
    **dict.fromkeys(("bank_size", "scratch", "frozen", "device", "edits"), "!bank"),
    **dict.fromkeys(("reuse", "refresh", "overhead"), "!bank, !frozen"),
    "restarts": "!bank",
    "how": "conditions",
    "nearest": "output",
}
"""Conditions under which options have an effect; see ``gansynth.runtime.options.Needs``."""
OF_SAMPLES = (
    *("run", "bank", "bank_size", "frozen", "reuse", "refresh", "overhead", "scratch", "restarts"),
    *("strict", "keep_going", "augment_synthetic", "edits", "boxes", "conditions", "how"),
    *("lesions", "weights", "filters", "device"),
)
"""Options about samples."""

nearest_option = click.option(
    "--nearest",
    is_flag=True,
    help="With -o: round a ratio that cannot be exact to the nearest possible one.",
)


def warn_of_idle(mix_config: MixConfig, out: Output) -> None:
    """Warn of options without effect where no sample is used, e.g. at a baseline's ratio."""
    from gansynth.runtime.options import idle

    context = click.get_current_context()
    needs = dict.fromkeys(OF_SAMPLES if mix_config.ratio.p == 0 else (), "!ratio")
    for message in idle(typed_options(context), context.params, needs, typed, called):
        out.reporter.warn(message.partition(";")[0])


def host_data(
    data: str | None, reading: Mapping[str, Any], run: RunFolder | None
) -> tuple[SourceRequest, str]:
    """Return the data of a target, and in words what was taken from the generator's fit.

    Raises:
        UsageFault: no data set is named, or a key has no effect.
        DataFault: no run there.
    """
    from gansynth.core.source import SourceRequest
    from gansynth.data.read_options import refuse_idle_read
    from gansynth.sampling.run_source import requested, resolve_request

    if data is not None:
        parsed = SourceRequest.parse(data)
        reading = {**reading, "kind": parsed.kind, "where": parsed.where}
    request = requested(reading, run)
    refuse_idle_read(request, reading["read"])
    return request, "" if run is None else resolve_request(request, reading)
