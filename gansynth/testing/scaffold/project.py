"""Writing the project of a new plugin: what it is called, which files it has, one rename."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gansynth.core.hookspecs import API_VERSION
from gansynth.core.registry import installed
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, whole_folder
from gansynth.runtime.version import __version__

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 40


@dataclass(frozen=True)
class Kind:
    """One kind of plugin; ``{}`` stands for its name."""

    registered: str  # the kind as the registry calls it
    module: str  # of the package, and the template it comes from
    thing: str  # what the module defines, with the name as a class has it
    summary: str  # one line
    try_it: str  # a command
    more: tuple[str, ...] = ()  # further modules


KINDS = {
    "generator": Kind(
        "generators",
        "generator",
        "{}Generator",
        "Generator {}: a small conditional GAN.",
        "gansynth fit {} --data example:2d -o runs/{} --set steps=300",
    ),
    "edit": Kind(
        "edits",
        "edit",
        "{}Edit",
        "Edit {}: changes the label maps that samples are drawn from.",
        "gansynth sample RUN -n 8 --sheet --edit {}",
    ),
    "filter": Kind(
        "filters",
        "filter",
        "{}Filter",
        "Filter {}: keeps samples out of banks.",
        "gansynth sample RUN -n 8 --filter {}",
    ),
    "metric": Kind(
        "metrics",
        "metric",
        "measure",
        "Metric {}: measures samples beside real cases.",
        "gansynth sample RUN -n 8 --metric {}",
    ),
    "source": Kind(
        "sources",
        "source",
        "{}Source",
        "Source {}: reads labelled cases.",
        "gansynth fit dcgan --data {}:FOLDER -o runs/{}",
    ),
    "adapter": Kind(
        "adapters",
        "adapter",
        "{}Adapter",
        "Adapter {}: mixes samples into the training of a host.",
        "gansynth augment --target {} --data example:2d --generator RUN --ratio 1:1",
        more=("host",),
    ),
}
"""What ``--kind`` may be."""


@dataclass(frozen=True)
class Project:
    """A project that was, or would be, written."""

    folder: Path
    distribution: str  # what pip calls it
    package: str  # what Python calls it
    files: dict[str, str]  # path below the folder -> text


def plan_project(name: str, kind: str = "generator", folder: Path | None = None) -> Project:
    """Say what the project of a plugin would be; nothing is written.

    The plugin registers ``name``, and its package is called ``gansynth_NAME``; the project's folder
    is ``gansynth-NAME`` here if None.

    Raises:
        UsageFault: a name that is none, that is taken, or a folder that is there already.
    """
    found = KINDS[kind]
    package, distribution = f"gansynth_{name}", f"gansynth-{name.replace('_', '-')}"
    _check_name(name, found.registered, package)
    folder = folder if folder is not None else Path(distribution)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            f"{folder}: exists already, expected an empty folder or none; choose another -o"
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    words = {
        "name": name,
        "kind": kind,
        "project": distribution,
        "package": package,
        "title": title,
        "module": found.module,
        "thing": found.thing.format(title),
        "registered": found.registered,
        "summary": found.summary.format(name),
        "try_it": found.try_it.format(name, name),
        "api": API_VERSION,
        "version": __version__,
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "init.py",
        **{f"{package}/{module}.py": f"{module}.py" for module in (found.module, *found.more)},
        f"{package}/py.typed": None,
        f"tests/test_{name}.py": f"test_{kind}.py",
    }
    files = {path: _render(template, words) for path, template in templates.items()}
    return Project(folder, distribution, package, files)


def write_project(project: Project) -> None:
    """Write a project: all of it or nothing.

    Raises:
        UsageFault: the folder has come to be there meanwhile.
        EnvironmentFault: the disk refuses.
    """
    folder = project.folder.absolute()
    with whole_folder(folder) as temporary:
        for path, text in project.files.items():
            with disk_errors(temporary / path):
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_text(text, encoding="utf-8")


def _render(template: str | None, words: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    if template is None:
        return ""
    text = (resources.files(__package__) / "templates" / f"{template}.txt").read_text("utf-8")
    # Python and TOML, not HTML: nothing is to be escaped.
    engine = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return engine.from_string(text).render(words)


def _check_name(name: str, registered: str, package: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageFault(
            f"plugins new {name!r}: expected a package name of at most {LONGEST} characters: "
            "lower-case letters, digits and single underscores, a letter first; for example: mygan"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageFault(
            f"plugins new {name!r}: is a keyword of Python, expected another word; for example: "
            f"my_{name}"
        )
    if name.startswith("gansynth"):
        raise UsageFault(
            f"plugins new {name!r}: gansynth_ is put in front of the package's name, expected a "
            "name without it"
        )
    registry = installed()
    if name in registry.loaders[registered]:
        owner = registry.loaders[registered][name][0]
        raise UsageFault(
            f"plugins new {name!r}: {registered[:-1]} {name!r} is already registered by plugin "
            f"{owner!r}, expected another name. See: gansynth plugins"
        )
    if name in registry.plugins or name in registry.broken or importlib.util.find_spec(package):
        raise UsageFault(
            f"plugins new {name!r}: a plugin or package {package} is installed already, expected "
            "another name. See: gansynth plugins"
        )
