"""Built-in plugins have no privileges: they import what strangers may.

The core names none of them, and reads none of their options.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

import gansynth
from gansynth.core.registry import installed
from tests.house import ROOT

OWN = sorted(
    path for shelf in ("plugins", "adapters") for path in (ROOT / shelf).glob("gansynth_*")
)
GUIDE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
PUBLIC = set(
    re.findall(
        r"`(gansynth\.[\w.]+)`",
        GUIDE.partition("Also public are")[2].partition("Public are, too")[0],
    )
)
"""Modules and packages that docs/plugins.md names."""
NAMES = {*installed().names("generators"), *installed().names("adapters")} - {
    "elastic",
    "segmenter",
}
"""Without those that are words of the field, too: an edit, and any network that segments."""
ELSEWHERE = {"testing"}
"""Packages that name examples: the conformance kit, its phantoms and the tutorial's commands."""


CORE = sorted(
    path for path in (ROOT / "gansynth").iterdir() if path.is_dir() and path.name not in ELSEWHERE
)


def imports(folder: Path) -> Iterator[str]:
    """Names of gansynth that a plugin imports, as ``module.name``; not its own."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.startswith("gansynth"))
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("gansynth"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_public(name: str) -> bool:
    """Whether strangers may import it: from ``gansynth``, or from a module of docs/plugins.md."""
    module, _, attribute = name.rpartition(".")
    if attribute.startswith("_") and attribute != "__version__":
        return False
    if module == "gansynth":
        return attribute in gansynth.__all__ or name in PUBLIC
    if attribute in gansynth.__all__:
        found = getattr(import_module(module), attribute)
        if found is getattr(gansynth, attribute):
            return True
    return any(f"{module}.".startswith(f"{public}.") or name == public for public in PUBLIC)


def private(folder: Path) -> list[str]:
    own = f"{folder.name}."
    return sorted({n for n in imports(folder) if not n.startswith(own) and not is_public(n)})


@pytest.mark.parametrize("folder", OWN, ids=lambda folder: folder.name)
def test_a_plugin_imports_what_strangers_may(folder):
    assert private(folder) == []


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and text values of a module, without docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    remarks = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in remarks
        ):
            yield node.lineno, node.value


def named(text: str) -> set[str]:
    return NAMES & set(re.findall(r"\w+", text))


def options_of_plugins() -> set[str]:
    """Names of several words of their options that no class of the core has, too."""
    registry = installed()
    options: list[type[BaseModel]] = [
        registry.generator(name).Options for name in registry.names("generators")
    ]
    options += [registry.adapter(name).Options for name in registry.names("adapters")]
    names = {name for each in options for name in each.model_fields if "_" in name}
    for path in (path for package in CORE for path in package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.discard(node.target.id)
    return names


@pytest.mark.parametrize("package", CORE, ids=lambda path: path.name)
def test_the_core_names_no_generator_and_no_host(package):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(sorted(named(text)))}"
        for path in sorted(package.rglob("*.py"))
        for line, text in texts(path)
        if named(text)
    ]
    assert found == []


def test_the_core_reads_no_option_of_a_plugin():
    options = options_of_plugins()
    assert len(options) > 30
    found = []
    for path in (path for package in CORE for path in sorted(package.rglob("*.py"))):
        read = [(line, word) for line, text in texts(path) for word in re.findall(r"\w+", text)]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                read.append((node.lineno, node.attr))
        found += [
            f"{path.relative_to(ROOT)}:{line}: {word}" for line, word in read if word in options
        ]
    assert found == []
