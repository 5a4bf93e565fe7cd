"""What options of ``gansynth augment`` mean together: engines, exports, baselines, its data."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault
from gansynth_cli.common import Output, summary
from gansynth_cli.typed import called, refuse_others, typed, typed_options

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter, Content, Injection
    from gansynth.core.bank_options import BankSize
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import SourceRequest

CHECKOUT = "GANSYNTH_DEEPMEDIC"
"""Variable that names the checkout of DeepMedic where ``--deepmedic`` does not."""
ENGINE = "engine"
NO_ENGINES = "has no engines to choose from, expected --target deepmedic"
OPTIONS = {
    "detector": ("--detector", "is no detector, expected --target yolo"),
    ENGINE: ("--engine", NO_ENGINES),
    "deepmedic": ("--deepmedic", NO_ENGINES),
    "python": ("--deepmedic-python", NO_ENGINES),
}
"""Setting -> the option that says the same, and what is said of a host without that setting."""


def host_settings(
    settings: Mapping[str, str],
    known: Container[str],
    target: str,
    said: Mapping[str, str | Path | None],
    *,
    output: Path | None,
    options: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    exports: bool = True,
) -> tuple[dict[str, str], Path | None]:
    """The settings of a host with what options say among them, and where a data set is written.

    Hosts of several engines train where one is chosen, and ``-o`` is then the folder of results;
    else ``-o`` is where a data set is written, which any engine trains on. Of hosts that write no
    data sets it is the folder of results, too.

    Args:
        known: the settings that the target has.
        said: key of ``OPTIONS`` -> what that option says, None for nothing.
        options: what follows ``--``.

    Returns:
        Settings, and the folder of ``-o`` if nothing is trained.

    Raises:
        UsageFault: an option that the target does not know, or two that say different things.
    """
    found = dict(settings)
    for key, value in said.items():
        option, why = OPTIONS[key]
        if value is not None and key not in known:
            raise UsageFault(f"{option} {value}: {target} {why}; leave it out")
        _put(found, key, value, option)
    if ENGINE in known:
        _choose_engine(found, options, environ)
    trains = ENGINE in found if ENGINE in known else not exports and "output" in known
    if not trains:
        return found, output
    _put(found, "output", output, "-o")
    return found, None


def _choose_engine(
    settings: dict[str, str], options: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Put in the engine that other options imply."""
    if ENGINE in settings:
        return
    if "deepmedic" in settings or (options and environ.get(CHECKOUT)):
        settings[ENGINE] = "deepmedic"
    elif options:
        raise UsageFault(
            f"-- {options[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "that it trains on, or to train with --engine torch, leave out what follows --"
        )


def _put(settings: dict[str, str], key: str, value: str | Path | None, option: str) -> None:
    """Set one more; refuse it where it is set already, otherwise."""
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
"""Options that an export heeds; every other one is about a training, which there is none of."""


def run_export(
    adapter: Adapter,
    injection: Injection,
    name: str,
    content: Content | None,
    *,
    dry_run: bool,
    out: Output,
) -> None:
    """Export, and print what came of it.

    Raises:
        GansynthError: what the adapter refuses.
    """
    document: Mapping[str, Any] = adapter.export(
        injection,
        name,
        content=content or "mixed",
        size=asked_size(injection),
        dry_run=dry_run,
        reporter=out.reporter,
    )
    if dry_run and injection.run and injection.bank is None and injection.ratio.p > 0:
        from gansynth.hosts.checks import seconds_of_a_sample

        each = round(seconds_of_a_sample(adapter, injection), 3)
        document = {**document, "seconds_per_sample": each, "memory": "not measured"}
    out.result(document, summary(document))


def data_set_name(adapter: Adapter, export: str | None, output: Path | None) -> str:
    """What the new data set is called, in the host's way.

    Raises:
        UsageFault: the host's data sets are called otherwise, or it writes none.
    """
    said = f"--export {export}" if output is None else f"-o {output}"
    if adapter.exports == "nothing":
        raise UsageFault(
            f"{said}: {adapter.name} has no data sets to write; expected a host that has, such as "
            "nnunet, deepmedic or yolo. Leave it out to train with samples mixed in"
        )
    if output is None and adapter.exports == "folder":
        raise UsageFault(
            f"{said}: {adapter.name} has no list of data sets to add a name to, expected -o DIR, a "
            "new folder; take that instead"
        )
    if output is not None and adapter.exports == "name":
        raise UsageFault(
            f"{said}: {adapter.name} finds data sets by name in its own folders, expected --export "
            "DatasetNNN_Name; take that instead"
        )
    return str(export if output is None else output)


def asked_size(injection: Injection) -> BankSize | None:
    """``--bank-size``, if it was given."""
    return injection.size if "bank_size" in typed_options(click.get_current_context()) else None


def check_options(export: str | None, output: Path | None, content: str | None) -> None:
    """Refuse what an export would ignore, and ``--content`` without an export.

    Raises:
        UsageFault: naming the first option that was given all the same.
    """
    if export is None and output is None:
        if content is not None:
            raise UsageFault(
                f"--content {content}: expected --export DatasetNNN_Name or -o DIR beside it; "
                "without, samples are mixed in at --ratio while the host trains"
            )
        return
    if export is not None and output is not None:
        raise UsageFault(
            f"--export {export} with -o {output}: one says where the data set goes, expected "
            "--export for nnunet or -o for yolo and deepmedic; leave one out"
        )
    said = "--export" if output is None else "-o"
    why = "nothing is trained, expected only what says which samples are written"
    refuse_others(MEANT, f"{said} with {{}}: {why}; leave it out")


NEEDS = {
    **dict.fromkeys(("bank_size", "scratch", "frozen", "device", "edits"), "!bank"),
    **dict.fromkeys(("reuse", "refresh", "overhead"), "!bank, !frozen"),
    "restarts": "!bank",
    "how": "conditions",
    "nearest": "output",
}
"""What options take to have an effect; see ``gansynth.runtime.options.Needs``."""
OF_SAMPLES = (
    *("run", "bank", "bank_size", "frozen", "reuse", "refresh", "overhead", "scratch", "restarts"),
    *("strict", "keep_going", "augment_synthetic", "edits", "boxes", "conditions", "how"),
    *("lesions", "weights", "filters", "device"),
)
"""Options about samples."""

nearest_option = click.option(
    "--nearest",
    is_flag=True,
    help="With -o: a ratio that cannot be exact takes the nearest that can, instead of an error.",
)


def warn_of_idle(injection: Injection, out: Output) -> None:
    """Say which options mean nothing where no sample is drawn: at a baseline's ratio, say."""
    from gansynth.runtime.options import idle

    context = click.get_current_context()
    needs = dict.fromkeys(OF_SAMPLES if injection.ratio.p == 0 else (), "!ratio")
    for said in idle(typed_options(context), context.params, needs, typed, called):
        out.reporter.warn(said.partition(";")[0])


def host_data(
    data: str | None, asked: Mapping[str, Any], run: RunFolder | None
) -> tuple[SourceRequest, str]:
    """What a host is opened on, and in words what of it was taken from the generator.

    Raises:
        UsageFault: nothing says which data set it is, or a key without effect.
        DataFault: no run there.
    """
    from gansynth.core.source import SourceRequest
    from gansynth.data.reading import refuse_idle_read
    from gansynth.sampling.opening import requested, taken

    if data is not None:
        told = SourceRequest.parse(data)
        asked = {**asked, "kind": told.kind, "where": told.where}
    request = requested(asked, run)
    refuse_idle_read(request, asked["read"])
    return request, "" if run is None else taken(request, asked)
