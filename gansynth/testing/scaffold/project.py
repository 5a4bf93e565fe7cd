"""Project template of a new plugin: its names and files, written atomically."""

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
from gansynth.runtime.files import disk_errors, elsewhere, whole_folder
from gansynth.runtime.version import __version__

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 40


KINDS = {
    "generator": (
        "Generator {}: a small conditional GAN.",
        "gansynth fit {} --data example:2d -o runs/{} --set steps=300",
    ),
    "edit": (
        "Edit {}: changes the label maps that samples are generated from.",
        "gansynth sample RUN -n 8 --sheet --edit {}",
    ),
    "filter": ("Filter {}: rejects samples.", "gansynth sample RUN -n 8 --filter {}"),
    "metric": (
        "Metric {}: numbers of samples beside real cases.",
        "gansynth sample RUN -n 8 --metric {}",
    ),
    "source": (
        "Source {}: reads labelled cases.",
        "gansynth fit dcgan --data {}:FOLDER -o runs/{}",
    ),
    "writer": (
        "Writer {}: a format of samples on disk.",
        "gansynth sample RUN -n 8 --format {} -o samples/",
    ),
    "host": (
        "Host {}: trains on real cases with samples mixed in.",
        "gansynth augment --target {} --data example:2d --generator RUN --ratio 1:1",
    ),
}
"""Values of ``--kind``: a line on what it is, and a command to try; ``{}`` stands for its name."""


@dataclass(frozen=True)
class PluginProject:
    """A project to be written."""

    folder: Path
    distribution: str  # name for pip
    package: str  # name for imports
    files: dict[str, str]  # path below the folder -> text


def plan_project(name: str, kind: str = "generator", folder: Path | None = None) -> PluginProject:
    """Plan the project of a plugin; nothing is written.

    The plugin registers ``name``, its package is ``gansynth_NAME``, and the default folder is
    ``gansynth-NAME``.
    """
    summary, try_it = KINDS[kind]
    registered = f"{kind}s"  # kind in the registry
    package, distribution = f"gansynth_{name}", f"gansynth-{name.replace('_', '-')}"
    _check_name(name, registered, package)
    folder = folder if folder is not None else Path(distribution)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            "testing.project-folder-exists",
            f"{folder}: exists already, expected a new or an empty folder; choose another: "
            f"{elsewhere(folder)}",
        )
    title = "".join(map(str.capitalize, name.split("_")))
    words = {
        "name": name,
        "kind": kind,
        "project": distribution,
        "package": package,
        "title": title,
        "module": kind,
        "thing": f"{title}{kind.capitalize()}",
        "registered": registered,
        "summary": summary.format(name),
        "try_it": try_it.format(name, name),
        "api": API_VERSION,
        "version": __version__,
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "init.py",
        f"{package}/{kind}.py": f"{kind}.py",
        f"{package}/py.typed": None,
        f"tests/test_{name}.py": f"test_{kind}.py",
    }
    files = {path: _render(template, words) for path, template in templates.items()}
    return PluginProject(folder, distribution, package, files)


def write_project(project: PluginProject) -> None:
    """Write a project atomically."""
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
    # Python and TOML, not HTML: no escaping.
    engine = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return engine.from_string(text).render(words)


def _check_name(name: str, registered: str, package: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageFault(
            "testing.plugin-name-invalid",
            f"plugins new {name!r}: expected a package name of at most {LONGEST} characters: "
            "lower-case letters, digits and single underscores, a letter first; for example: mygan",
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageFault(
            "testing.plugin-name-is-keyword",
            f"plugins new {name!r}: is a Python keyword, expected another name; for example: "
            f"my_{name}",
        )
    if name.startswith("gansynth"):
        raise UsageFault(
            "testing.plugin-name-has-prefix",
            f"plugins new {name!r}: expected a name without the prefix gansynth_, which is added "
            "to the package's name",
        )
    registry = installed()
    if name in registry.loaders[registered]:
        owner = registry.loaders[registered][name][0]
        raise UsageFault(
            "testing.plugin-name-registered",
            f"plugins new {name!r}: {registered[:-1]} {name!r} is already registered by plugin "
            f"{owner!r}, expected another name. See: gansynth plugins",
        )
    if name in registry.plugins or name in registry.broken or importlib.util.find_spec(package):
        raise UsageFault(
            "testing.plugin-package-installed",
            f"plugins new {name!r}: a plugin or package {package} is installed already, expected "
            "another name. See: gansynth plugins",
        )
