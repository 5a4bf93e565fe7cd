import ast
import json
import os
import re
import resource
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import gansynth
from tests.house import parsed, statements

ROOT = Path(__file__).parents[1]
OF_THE_REPOSITORY = ("measure", "gpu", "blank", "controls")
SHELVES = ("plugins", "adapters", "cli", "benchmarks")
MEASURING = ("benchmarks/gansynth_evaluate", "benchmarks/gansynth_benchmark")
PACKED = ("gansynth", "plugins", "adapters", "cli", *MEASURING)
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
    ("file", "line"),
    [
        ("CITATION.cff", "version: {}\n"),
        (".zenodo.json", '"version": "{}"'),
        ("conda-recipe/meta.yaml", 'version = "{}"'),
        ("CHANGELOG.md", "## {} "),
    ],
)
def test_a_file_names_the_version(file, line):
    assert line.format(gansynth.__version__) in (ROOT / file).read_text("utf-8")


def test_who_cites_archives_or_packs_it_is_told_what_the_project_says_of_itself():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    archived = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    packed = (ROOT / "conda-recipe/meta.yaml").read_text("utf-8")
    assert cited["authors"] == archived["creators"] == project["authors"]
    assert cited["keywords"] == archived["keywords"] == project["keywords"]
    assert cited["license"] == archived["license"] == project["license"]
    assert f"  license: {project['license']}\n" in packed
    assert f"    - python {project['requires-python']}\n" in packed
    assert cited["title"] == archived["title"]
    assert f"<p>{cited['abstract']}</p>" == archived["description"]
    (told,) = re.findall(r"  description: \|\n(.*)\n  license:", packed, re.DOTALL)
    assert " ".join(told.split()) == cited["abstract"]
    assert f"  summary: {project['description'].partition(';')[0]}\n" in packed


CONDA = {"blosc2": "python-blosc2", "matplotlib": "matplotlib-base", "torch": "pytorch"}
"""Name of a package -> its name on conda-forge, where it goes by another."""


def test_the_conda_recipe_requires_what_the_project_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "conda-recipe/meta.yaml").read_text("utf-8").partition("  run:\n")[2]
    asked = dict(re.findall(r"^    - (\S+) (\S+)$", recipe, re.MULTILINE))
    for need in map(Requirement, project["dependencies"]):
        name = canonicalize_name(need.name)
        assert SpecifierSet(asked[CONDA.get(name, name)]) == need.specifier, name


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
