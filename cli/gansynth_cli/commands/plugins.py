"""``gansynth plugins``: list and check plugins, and write the project of a new one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import IntegrityFault, UsageFault, did_you_mean, refuse_unknown
from gansynth.runtime.parts import refuse_absent
from gansynth_cli.common import (
    FOLDER,
    Output,
    dry_run_option,
    examples,
    reader_of_pairs,
    set_option,
    table,
    then,
    with_output,
)

CHECKED = ("generator", "edit", "filter", "writer", "metric", "source", "host", "reader")
"""Kinds of plugins that have a contract to check, in the order in which a name is looked up."""
ON_DATA = {"source": "{}:WHERE", "reader": "FILE, or a folder of such files"}
"""Kinds that are checked on data of their own, and how these are named."""

if TYPE_CHECKING:
    from gansynth.core.registry import Registry
    from gansynth.testing import ConformanceReport


@click.group(
    invoke_without_command=True,
    epilog=examples("gansynth plugins check cgan3d", "gansynth plugins new mygan"),
)
@click.pass_context
def command(context: click.Context) -> None:
    """List and check installed plugins, or start a new one.

    Plugins are found through the entry-point group gansynth. A plugin that does not load is listed
    with its reason. The others keep working.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_plugins)


@command.command("list", epilog=examples("gansynth plugins list", "gansynth plugins list --load"))
@click.option(
    "--load", is_flag=True, help="Import everything they offer, to find what does not load."
)
@with_output
def list_plugins(load: bool, out: Output) -> None:
    """List what the installed plugins offer, and why others do not load.

    Each line has kind, name, plugin, and the plugin's distribution with its version. Recipes
    and their summaries follow. Only the small first module of each plugin is imported. --load
    imports everything.
    """
    from gansynth.core.registry import installed
    from gansynth.fitting.inventory import inventory, unusable

    registry = installed()
    document = inventory(registry)
    if load:
        document["unusable"] = unusable(registry)
    broken = [
        ("broken", name, _origin(registry, name), reason)
        for name, reason in registry.broken.items()
    ]
    broken += [
        ("unusable", name, _origin(registry, registry.loaders[kind][name][0]), reason)
        for kind, names in document.get("unusable", {}).items()
        for name, reason in names.items()
    ]
    summaries = [(name, recipe["summary"]) for name, recipe in document["recipes"].items()]
    rows = [
        (kind, name, f"from {plugin}", _origin(registry, plugin))
        for kind, names in document["found"].items()
        for name, plugin in names.items()
    ]
    rows += [
        ("nothing", "-", f"from {plugin}", _origin(registry, plugin))
        for plugin in registry.plugins
        if not registry.offers(plugin)
    ]
    hints = [then("options", name) for name in document["found"].get("generators", ())][:1]
    lines = [*table(rows), *table(broken), *([""] if summaries else []), *table(summaries)]
    out.result(document, [*lines, *hints])


@command.command(
    "check",
    epilog=examples(
        "gansynth plugins check cgan3d",
        "gansynth plugins check nifti --data nifti:scans",
    ),
)
@click.argument("name", metavar="NAME")
@set_option
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Training steps of a generator.",
)
@click.option(
    "--kind",
    type=click.Choice(CHECKED),
    help="What NAME is, where several plugins have it. [default: the first of these]",
)
@click.option(
    "--data",
    metavar="KIND:WHERE|FILE",
    help="A data set of a source, or files of a reader, to check it on.",
)
@click.option(
    "--read",
    multiple=True,
    metavar="KEY=VALUE",
    callback=reader_of_pairs("--read", "spacing=2,1,1"),
    help="How a source reads its data set (gansynth options NAME lists the keys); may be repeated.",
)
@with_output
def check(
    name: str,
    settings: dict[str, str],
    steps: int,
    kind: str | None,
    data: str | None,
    read: dict[str, str],
    out: Output,
) -> None:
    """Check a plugin against its contract, on toy data.

    NAME is a generator, edit, filter, writer, metric, source, host or reader of a format. --steps
    is for generators. A source is checked on --data, with --read; a reader on files of its format.
    A host that reads only data of its own framework is checked on them, see
    gansynth.testing.check_host.
    """
    from gansynth.core.registry import installed

    registry = installed()
    known = [each for each in CHECKED if name in registry.loaders[f"{each}s"]]
    if not known:
        refuse_absent("plugin", name)
        raise UsageFault("command.plugin-not-checkable", _not_checkable(name))
    fitting = [each for each in known if (each in ON_DATA) == (data is not None)]
    kind = kind or [*fitting, *known][0]
    loaded = registry.load(f"{kind}s", name)
    if (kind in ON_DATA) != (data is not None):
        raise UsageFault(
            "command.plugin-check-data-mismatch",
            f"plugins check {name}: a {kind} is checked on data of its own, expected --data "
            f"{ON_DATA[kind].format(name)}"
            if data is None
            else f"--data {data}: has no effect, a {kind} is checked on toy data; leave it out",
        )
    if read and kind != "source":
        raise UsageFault(
            "command.plugin-check-read-mismatch",
            f"--read: has no effect, {name} is a {kind}, not a source; leave it out",
        )
    if kind in ON_DATA:
        refuse_unknown(settings, (), of=name)
    out.reporter.say(f"checking {name} on {data or 'toy cases'}")
    if data is not None and kind == "reader":
        from gansynth.testing import check_reader

        report = check_reader(loaded, Path(data))
    elif data is not None:
        report = _check_source(name, data, read)
    else:
        report = _check_class(kind, loaded, name, settings, steps)
    out.result(report.to_json(), lines_of(report))
    if not report.passed:
        failed = ", ".join([check.name for check in report.failed])
        raise IntegrityFault(
            "command.plugin-checks-failed",
            f"{name}: {len(report.failed)} check(s) failed: {failed}",
        )


def _not_checkable(name: str) -> str:
    from gansynth.core.registry import installed

    registry, names = installed(), list[str]()
    for kind in CHECKED:
        names += registry.names(f"{kind}s")
    others = [kind for kind, loaders in registry.loaders.items() if name in loaders]
    if not others:
        nearest = did_you_mean(name, names)
        project = Path(f"gansynth-{name}")  # as ``plugins new`` calls it
        folder = project if project.is_dir() else "FOLDER"
        return (
            f"plugins check {name}: no installed plugin has this name.{nearest} If it is in a "
            f"folder of yours, install that first: pip install -e {folder}. See: gansynth plugins "
            "list"
        )
    return (
        f"plugins check {name}: is among the {' and '.join(others)}, expected the name of one of: "
        f"{', '.join(CHECKED)}."
        f"{did_you_mean(name, names)} See: gansynth plugins list"
    )


def _check_source(name: str, data: str, read: dict[str, str]) -> ConformanceReport:
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest
    from gansynth.testing import check_source

    request = SourceRequest.parse(data, read=read)
    if request.kind != name:
        raise UsageFault(
            "command.plugin-data-of-other-source",
            f"--data {data}: is read by {request.kind}, expected {name}:WHERE",
        )
    return check_source(installed().load("sources", name), request)


def _check_class(
    kind: str, cls: Any, name: str, settings: dict[str, str], steps: int
) -> ConformanceReport:
    from gansynth.hosts.contract.crop_host import CropHost
    from gansynth.runtime.options import OptionModel, parse
    from gansynth.testing import (
        ToySource,
        check_edit,
        check_filter,
        check_generator,
        check_host,
        check_metric,
        check_writer,
    )

    if kind == "host" and not issubclass(cls, CropHost):
        raise UsageFault(
            "command.host-not-checkable-here",
            f"plugins check {name!r}: it is checked on its framework's data, from a test: "
            "gansynth.testing.check_host(HOST, source, workspace=...)",
        )
    model = getattr(cls, "Options", OptionModel)  # a metric has none
    refuse_unknown(settings, model.model_fields, of=name)
    options = parse(model, settings).model_dump()
    if kind == "host":
        with TemporaryDirectory() as workspace:
            return check_host(cls, ToySource(3), workspace=Path(workspace), settings=settings)
    if kind == "generator":
        return check_generator(cls, options=options, steps=steps)
    if kind == "metric":
        return check_metric(cls)
    checks = {"edit": check_edit, "filter": check_filter, "writer": check_writer}
    return checks[kind](cls, options=options)


@command.command(
    "new",
    epilog=examples(
        "gansynth plugins new mygan",
        "gansynth plugins new brighter --kind metric -o ~/src/brighter --dry-run",
    ),
)
@click.argument("name", metavar="NAME")
@click.option(
    "--kind",
    type=click.Choice(["generator", "edit", "filter", "metric", "source", "writer", "host"]),
    default="generator",
    show_default=True,
    help="What the plugin offers.",
)
@click.option(
    "-o", "--out", "folder", type=FOLDER, help="Folder of the project. [default: ./gansynth-NAME]"
)
@dry_run_option
@with_output
def new(name: str, kind: str, folder: Path | None, dry_run: bool, out: Output) -> None:
    """Write the project of a new plugin that works, with its test.

    NAME is what the plugin registers; its package is called gansynth_NAME.
    """
    from gansynth.testing.scaffold.project import plan_project, write_project

    project = plan_project(name, kind, folder)
    if not dry_run:
        write_project(project)
    document = {
        "dry_run": dry_run,
        "folder": str(project.folder),
        "kind": kind,
        "package": project.package,
        "files": list(project.files),
    }
    place = ["-o", str(project.folder)]
    following = then("install", "-e", project.folder, program="pip")
    if dry_run:
        following = then("plugins", "new", name, "--kind", kind, *place)
    out.result(document, [*(str(project.folder / path) for path in project.files), following])


def _origin(registry: Registry, plugin: str) -> str:
    return str(registry.origins.get(plugin) or "-")


def lines_of(report: ConformanceReport) -> list[str]:
    """Return a check report as aligned lines."""
    return table((check.verdict, check.name, check.message) for check in report.checks)
