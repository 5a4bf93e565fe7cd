"""Built-in plugins have no privileges: they import what strangers may.

The core names none of them, and reads none of their options.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

import gansynth
from gansynth.core.generator import GeneratorOptions
from gansynth.core.registry import installed
from gansynth.hosts.contract.crop_host import TrainingOptions
from gansynth.hosts.contract.host import framework
from gansynth.training.loop import FitOptions
from tests.house import ROOT, parsed, statements

OWN = sorted(
    path for shelf in ("plugins", "adapters") for path in (ROOT / shelf).glob("gansynth_*")
)
ELSEWHERE_RUN = {"hook.py", "insertion.py"}
"""Modules that run in another framework's Python, which has no ``gansynth``, only its folder."""
MOST_PUBLIC = 190
MOST_PRIVATE = 109
"""Names that built-ins import of the distribution that they are part of. Lower it with them."""
MODULES = re.findall(
    r"`(gansynth(?:\.[a-z_]+)+)`", (ROOT / "docs" / "plugin_names.md").read_text("utf-8")
)
"""Those that a page for authors offers as a whole."""
NAMES = {*installed().names("generators"), *installed().names("hosts")} - {
    "elastic",
    "segmenter",
}
"""Without those that are words of the field, too: an edit, and any network that segments."""
ELSEWHERE = {"testing", "commands.py"}
"""What names examples: the conformance kit, its phantoms and the tutorial's commands; help."""


CORE = sorted(
    path for path in (ROOT / "gansynth").iterdir() if path.is_dir() and path.name not in ELSEWHERE
) + sorted((ROOT / "benchmarks").glob("gansynth_*"))


def imports(folder: Path) -> Iterator[str]:
    """Names of gansynth that a plugin imports, as ``module.name``; not its own."""
    for path in folder.rglob("*.py"):
        if path.name in ELSEWHERE_RUN:
            continue
        for node in statements(parsed(path).body):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.startswith("gansynth"))
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("gansynth"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", OWN, ids=lambda folder: folder.name)
def test_a_plugin_imports_public_names_as_strangers_do(folder):
    by_module = []
    for name in imports(folder):
        module, _, attribute = name.rpartition(".")
        if module != "gansynth" and attribute in gansynth.__all__:
            found = getattr(import_module(module), attribute)
            by_module += [name] if found is getattr(gansynth, attribute) else []
    assert by_module == []


def public_names() -> set[str]:
    """All that a stranger may import, as ``module.name``."""
    public = {f"gansynth.{name}" for name in gansynth.__all__}
    for module in MODULES:
        found = import_module(module)
        public |= {module, *(f"{module}.{name}" for name in vars(found) if name[0] != "_")}
    return public


def test_names_that_plugins_may_import_become_no_more():
    assert len(gansynth.__all__) <= MOST_PUBLIC
    own = {name for folder in OWN for name in imports(folder) if not name.startswith("gansynth_")}
    assert len(own - public_names()) <= MOST_PRIVATE


def test_what_strangers_read_imports_from_gansynth_alone():
    texts = []
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        texts += re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for folder, ending in (("examples", "*.py"), ("gansynth/testing/scaffold", "*.txt")):
        texts += [path.read_text("utf-8") for path in (ROOT / folder).rglob(ending)]
    modules = re.findall(r"^ *from (gansynth\.[\w.]+)", "\n".join(texts), re.MULTILINE)
    assert modules == []


def naming(paths: Iterable[Path], words: Iterable[str]) -> list[Path]:
    """Files that have one of some words anywhere, which are few."""
    some = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b")
    return sorted(path for path in paths if some.search(path.read_text("utf-8")))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and text values of a module, without docstrings."""
    tree = parsed(path)
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


@cache
def options_of_plugins() -> frozenset[str]:
    """Names of their own options."""
    registry = installed()
    options: list[type[BaseModel]] = [
        registry.generator(name).Options for name in registry.names("generators")
    ]
    options += [framework(name).Options for name in registry.names("hosts")]
    own = {*GeneratorOptions.model_fields, *FitOptions.model_fields, *TrainingOptions.model_fields}
    return frozenset(name for each in options for name in each.model_fields if name not in own)


def declared(paths: Iterable[Path], kind: str = "") -> set[str]:
    """Names that classes of such a kind, by their own name or a base's, declare; or anything."""
    nodes = [node for path in paths for node in ast.walk(parsed(path))]
    if kind:
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        nodes = [
            node
            for each in classes
            if any(name.endswith(kind) for name in (each.name, *map(holder, each.bases)))
            for node in each.body
        ]
    return {
        node.target.id
        for node in nodes
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.mark.parametrize("package", CORE, ids=lambda path: path.name)
def test_the_core_names_no_generator_and_no_host(package):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(sorted(named(text)))}"
        for path in naming(package.rglob("*.py"), NAMES)
        if path.name not in ELSEWHERE
        for line, text in texts(path)
        if named(text)
    ]
    assert found == []


def test_the_core_reads_no_option_of_a_plugin():
    options = {name for name in options_of_plugins() if "_" in name}
    files = naming((path for package in CORE for path in package.rglob("*.py")), options)
    options -= declared(files)
    assert len(options) > 30
    found = []
    for path in files:
        read = [(line, word) for line, text in texts(path) for word in re.findall(r"\w+", text)]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                read.append((node.lineno, node.attr))
        found += [
            f"{path.relative_to(ROOT)}:{line}: {word}" for line, word in read if word in options
        ]
    assert found == []


def read_of_options(tree: ast.AST) -> Iterator[tuple[int, object]]:
    """Lines and names that are read of options: as attributes, keys, or by ``get``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and holder(node.value) in HOLDERS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Subscript) and holder(node.value) in HOLDERS:
            yield node.lineno, getattr(node.slice, "value", None)
        elif isinstance(node, ast.Call):
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            if holder(node.func) in {"getattr", "hasattr"}:
                of = node.args[0]
            if holder(of) in HOLDERS:
                yield from ((node.lineno, getattr(word, "value", None)) for word in node.args)
        elif isinstance(node, ast.Compare) and holder(node.comparators[0]) in HOLDERS:
            yield node.lineno, getattr(node.left, "value", None)


def holder(node: ast.AST | None) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


HOLDERS = {"options", "Options", "settings", "set", "own", "model_fields"}
RECORDED = {"batch"}
"""Keys of how a sample was drawn, which are called like an option: ``SampleRecord.settings``."""
ENGINE = ("core", "sampling", "fitting", "bank", "hosts", "training", "conditions")


@pytest.mark.parametrize("package", ENGINE)
def test_the_engine_reads_no_option_of_a_plugin_of_one_word(package):
    options = options_of_plugins() - RECORDED
    files = naming((ROOT / "gansynth" / package).rglob("*.py"), options)
    assert {"given", "detector", "segments", "width"} <= options
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in files
        for line, word in read_of_options(parsed(path))
        if word in options - declared([path], "Options")  # a filter has options of its own
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "generator.options.width",
        "settings['width']",
        "self.own.get('width', 1)",
        "getattr(options, 'width', 1)",
        "'width' in cls.Options.model_fields",
    ],
)
def test_such_a_read_is_found(line):
    assert "width" in {word for _, word in read_of_options(ast.parse(line))}
