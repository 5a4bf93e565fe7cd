import ast
import os
import re
import resource
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gansynth
from gansynth.core.registry import installed
from tests.house import parsed, statements
from tests.testing.scaffold.test_stranger import Environment

ROOT = Path(__file__).parents[1]
OF_THE_REPOSITORY = ("measure", "gpu", "blank", "controls")
SHELVES = ("plugins", "adapters", "cli", "benchmarks")
MEASURING = ("benchmarks/gansynth_evaluate", "benchmarks/gansynth_benchmark")
PACKED = ("gansynth", "plugins", "adapters", "cli", *MEASURING)
PARTS = tomllib.loads((ROOT / "gansynth" / "runtime" / "parts.toml").read_text("utf-8"))
WHEELS = {"core": "gansynth-core", "lab": "gansynth-lab", "gansynth": "gansynth"}
"""Folder of wheels/ -> the distribution that is built there."""
OF_NNUNET = ROOT / "adapters" / "gansynth_segmenter" / "as_nnunet.py"
"""A module of the core for those who have nnU-Net; its caller asks for the adapter first."""
MODULES = sorted(path for folder in PACKED for path in (ROOT / folder).rglob("*.py"))

TEXTS = {".html", ".ipynb", ".md", ".py", ".sh", ".txt", ".yaml", ".yml"}

HELP_CPU_SECONDS = 0.3

DISTRIBUTIONS = {
    "markdown_it": "markdown-it-py",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "re2": "google-re2",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Import name -> the package that brings it, where it goes by another name."""
NOT_FOR_USE = {"bench", "dev", "dev-all", "docs"}
"""Extras that no module of ours needs."""
NOT_IMPORTED = {"tensorboard", "batchgenerators", "ultralytics", "nilearn"}
"""Imported by ``torch.utils.tensorboard``; what ``gansynth.mix_batches`` takes loaders of; what is
imported by its name as a text; and what has the maps of phantoms."""


NAMED_TO_AN_INDEX = re.compile(r"gansynth\[[a-z{]|pip install (-\S+ )*['\"]?gansynth(?![-\w./])")
"""There is no such project: anybody could take the name."""


def packages_on(*shelves: str) -> set[str]:
    return {init.parent.name for shelf in shelves for init in (ROOT / shelf).glob("*/__init__.py")}


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_shelf_is_no_package_but_holds_such_with_our_prefix(shelf):
    assert [*ROOT.glob("*.py"), *(ROOT / shelf).glob("*.py")] == []
    packages = packages_on(shelf)
    assert packages, f"no package on {shelf}/"
    assert {name for name in packages if not name.startswith("gansynth_")} == set()


def test_every_plugin_and_adapter_is_an_entry_point():
    declared = {e.value for e in distribution("gansynth").entry_points if e.group == "gansynth"}
    inits = (ROOT / "gansynth").rglob("__init__.py")
    core = {init.parent for init in inits if "@hookimpl" in init.read_text(encoding="utf-8")}
    ours = {".".join(folder.relative_to(ROOT).parts) for folder in core}
    assert declared == packages_on("plugins", "adapters") | ours


def test_every_package_of_benchmarks_has_a_table_of_commands():
    points = distribution("gansynth").entry_points
    declared = {e.value for e in points if e.group == "gansynth.commands"}
    assert declared == {f"{name}:COMMANDS" for name in packages_on("benchmarks")}


def test_nothing_tells_anybody_to_install_gansynth_from_an_index():
    folders = ("gansynth", *SHELVES, "docs", "tests", "examples", ".github")
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    texts = [path for path in (*ROOT.glob("*"), *found) if path.suffix in TEXTS]
    assert [str(path) for path in texts if NAMED_TO_AN_INDEX.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("file", "line"), [("CITATION.cff", "version: {}\n"), ("CHANGELOG.md", "## {} ")]
)
def test_a_file_names_the_version(file, line):
    assert line.format(gansynth.__version__) in (ROOT / file).read_text("utf-8")


def imported(module: Path) -> set[str]:
    """Top names of what a module imports, wherever in it."""
    names: list[str] = []
    for node in statements(parsed(module).body):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    needed = [*project["dependencies"]]
    needed += [need for name, needs in extras if name not in NOT_FOR_USE for need in needs]
    declared = {canonicalize_name(Requirement(need).name) for need in needed}
    ours = packages_on(*SHELVES) | {"gansynth"}
    names = set().union(*map(imported, MODULES)) - ours - sys.stdlib_module_names
    found = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}
    assert found | NOT_IMPORTED == declared


def packages_in(part: str) -> set[str]:
    """Packages of a distribution of a release."""
    others = {package for of, table in PARTS.items() if of != part for package in table["packages"]}
    if part in PARTS:
        return set(PARTS[part]["packages"])
    return (packages_on(*SHELVES) | {"gansynth"}) - others


def described(folder: str) -> Any:
    """What a distribution of a release says of itself, before it is built."""
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    return ProjectMetadata(str(ROOT / "wheels" / folder), PluginManager()).core


@pytest.mark.parametrize(("folder", "part"), WHEELS.items())
def test_a_distribution_needs_what_its_modules_import(folder, part):
    own = packages_in(part)
    modules = [path for path in MODULES if own.intersection(path.parts) and path != OF_NNUNET]
    ours = packages_on(*SHELVES) | {"gansynth"}
    names = set().union(*map(imported, modules)) - ours - sys.stdlib_module_names
    found = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}
    project = described(folder)
    whole = described("..").dependencies
    usual = {canonicalize_name(Requirement(need).name) for need in whole}
    declared = {canonicalize_name(Requirement(need).name) for need in project.dependencies}
    batches = {"batchgenerators"} if part == "gansynth" else set()
    assert found & usual | batches == declared - set(WHEELS.values())
    assert project.name == part


def test_what_is_told_of_an_absent_distribution_is_what_it_offers():
    registry = installed()
    plugins = {p.value: p.name for p in entry_points(group="gansynth")}
    for part, table in PARTS.items():
        names = set()
        for package in set(table["packages"]) & set(plugins):
            offers = registry.offers(plugins[package])
            names |= {*offers["hosts"], *offers["sources"]}
        tables = [f"{package}:COMMANDS" for package in table["packages"]]
        for point in entry_points(group="gansynth.commands"):
            names |= set(point.load()) if point.value in tables else set()
        assert sorted(names) == table["names"], part


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """The wheels of a release, by folder of wheels/."""
    out = tmp_path_factory.mktemp("wheels")
    found = {}
    for folder in WHEELS:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out / folder]
        subprocess.run(build, cwd=ROOT / "wheels" / folder, check=True, capture_output=True)
        (found[folder],) = (out / folder).glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheels_of_a_release_share_the_files_of_a_clones_wheel(wheels):
    from hatchling.builders.wheel import WheelBuilder

    packed = [file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()]
    names = [name for wheel in wheels.values() for name in ZipFile(wheel).namelist()]
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(packed)


@pytest.fixture(scope="module")
def core_alone(tmp_path_factory, wheels) -> Environment:
    """An environment of gansynth-core, what it needs, and nothing else; a run in it."""
    alone = Environment(tmp_path_factory.mktemp("alone"), described("core").dependencies)
    alone.pip(wheels["core"])
    small = ("--set", "steps=2", "--device", "cpu")
    alone.run("gansynth", "fit", "dcgan", "--data", "example:2d", "-o", "run", *small)
    return alone


@pytest.mark.slow
def test_the_core_alone_mixes_into_its_own_segmenter(core_alone):
    mixed = ("--data", "example:2d", "--generator", "run", "--ratio", "1:1", "--offline")
    small = ("--set", "steps=2", "--set", "device=cpu", "--bank-size", 4)
    core_alone.run("gansynth", "augment", "--target", "segmenter", *mixed, *small, "-o", "mixed")
    said = core_alone.run("gansynth", "plugins").stderr
    assert said == ""


ABSENT = {
    "evaluate run": ("command.part-not-installed", "lab"),
    "augment --target nnunet --data nnunet:4": ("registry.part-not-installed", "gansynth"),
    "fit cgan3d --data yolo:data.yaml -o x": ("registry.part-not-installed", "gansynth"),
    "prepare nnunet:004": ("registry.part-not-installed", "gansynth"),
    "options nnunet": ("registry.part-not-installed", "gansynth"),
    "demo -o demo": ("registry.part-not-installed", "gansynth"),
    "demo -o phantoms --phantoms tissues": ("phantoms.maps-not-installed", "nilearn"),
}
"""What is typed where gansynth-core is alone -> id, and what to install."""


@pytest.mark.slow
@pytest.mark.parametrize("typed", ABSENT)
def test_what_another_distribution_has_says_which(core_alone, typed):
    id, part = ABSENT[typed]
    said = core_alone.run("gansynth", *typed.split(), code=4).stderr
    assert said.count("\n") == 1
    assert said.endswith(f"[{id}]\n")
    assert ("pip install nilearn" if part == "nilearn" else f"./wheels/{part} -c") in said


@pytest.mark.slow
def test_with_the_lab_the_core_evaluates_and_with_the_adapters_it_prepares(core_alone, wheels):
    said = core_alone.run("python", "-c", "import gansynth; print(hasattr(gansynth, 'evaluate'))")
    assert said.stdout == "False\n"
    core_alone.pip(wheels["lab"])
    core_alone.run("gansynth", "evaluate", "run", "--preset", "quick", "-n", 4)
    core_alone.link(described("gansynth").dependencies[2:])
    core_alone.pip(wheels["gansynth"])
    core_alone.link(["nilearn"])
    core_alone.run("gansynth", "demo", "--phantoms", "nnunet", "-o", "phantoms")
    core_alone.run("gansynth", "prepare", "nnunet:999", "--root", "phantoms", "--set=small=yes")
    assert core_alone.run("gansynth", "plugins").stderr == ""


def test_each_public_name_exists_in_its_module():
    assert [name for name in gansynth.__all__ if not hasattr(gansynth, name)] == []


REQUESTS = {
    getattr(gansynth, name).request.__module__
    for name in gansynth.COMMANDS
    if hasattr(getattr(gansynth, name), "request")
} - {"gansynth.testing.demo_request"}
TOLD = """from gansynth.runtime.progress import RichReporter
with RichReporter().task(1, "t") as task:
    task.advance()"""
RESAMPLED = """import numpy as np; from gansynth.core.resample import resample
resample(np.zeros((1, 4, 4)), np.zeros((4, 4), np.int16), (2, 8))"""


@pytest.mark.parametrize(
    ("statement", "module", "heavy_here"),
    [
        ("import gansynth", "gansynth", {"numpy"}),
        (f"import {', '.join(sorted(REQUESTS))}", "gansynth.core.requests.fit", {"numpy", "h5py"}),
        ("import gansynth_cli.main", "gansynth_cli.main", {"numpy"}),
        (RESAMPLED, "gansynth.core.resample", set()),
        (TOLD, "gansynth.runtime.progress", {"rich"}),
        (
            "from gansynth import BankReader, Mixer, Ratio, hookimpl; from pathlib import Path; "
            "from gansynth.core.registry import installed; installed(); "
            "from gansynth.training.loggers import TensorBoardLog; "
            "TensorBoardLog(None, {}, print).close()",
            "gansynth.hosts.mixing.mixer",
            set(),
        ),
        (
            "import gansynth_nnunet.adapter, gansynth_deepmedic.adapter, gansynth_segmenter.host",
            "gansynth.sampling.run_source",
            set(),
        ),
    ],
)
def test_a_light_statement_imports_no_heavy_library(statement, module, heavy_here):
    heavy = {"torch", "nnunetv2", "scipy", "sklearn", "matplotlib"} | heavy_here
    heavy |= {"tensorboard", "pandas", "jinja2", "markdown_it"}
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    assert loaded & heavy == set()


def test_help_costs_little_cpu_time():
    script = Path(sysconfig.get_path("scripts")) / "gansynth"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "COVERAGE_"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [script, "--help"], env=environment, capture_output=True, text=True, timeout=60
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) <= HELP_CPU_SECONDS


def test_the_wheel_has_every_file_that_is_no_module():
    from hatchling.builders.wheel import WheelBuilder

    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    found = ROOT.glob("plugins/*/recipes/**/*.yaml")  # and the plans of their papers' tables
    recipes = {path.relative_to(ROOT / "plugins").as_posix() for path in found}
    templates = {
        path.relative_to(root).as_posix()
        for root in (ROOT, ROOT / "benchmarks")
        for path in root.glob("gansynth*/**/templates/*")
        if path.is_file()
    }
    pages = {f"gansynth_cli/pages/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert recipes
    assert len({Path(name).parent for name in templates}) == 5
    assert recipes | templates | pages <= packed
    assert [name for name in packed if name.startswith(OF_THE_REPOSITORY)] == []
