"""The distributions of a release: what each holds and needs, and that it works alone."""

import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gansynth.core.registry import installed, load_registry
from tests.house import ROOT
from tests.test_packaging import DISTRIBUTIONS, MODULES, SHELVES, imported, packages_on
from tests.testing.scaffold.test_stranger import Environment

pytest.importorskip("hatchling")
PARTS = tomllib.loads((ROOT / "gansynth" / "runtime" / "parts.toml").read_text("utf-8"))
WHEELS = {"core": "gansynth-core", "lab": "gansynth-lab", "gansynth": "gansynth"}
"""Folder of wheels/ -> the distribution that is built there."""
OF_NNUNET = ROOT / "adapters" / "gansynth_segmenter" / "as_nnunet.py"
"""A module of the core for those who have nnU-Net; its caller asks for the adapter first."""


def described(folder: str) -> Any:
    """What a distribution of a release says of itself, before it is built."""
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    return ProjectMetadata(str(ROOT / "wheels" / folder), PluginManager()).core


def test_each_package_is_in_one_distribution():
    packages = sorted(package for table in PARTS.values() for package in table["packages"])
    assert packages == sorted(packages_on(*SHELVES) | {"gansynth"})


@pytest.mark.parametrize(("folder", "part"), WHEELS.items())
def test_a_distribution_needs_what_its_modules_import(folder, part):
    own = set(PARTS[part]["packages"])
    paths = {path: path.relative_to(ROOT).parts for path in MODULES if path != OF_NNUNET}
    modules = [path for path, parts in paths.items() if own.intersection(parts)]
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
    for part in {*PARTS} - {"gansynth-core"}:  # which is always there
        table, names = PARTS[part], set()
        for package in set(table["packages"]) & set(plugins):
            offers = registry.offers(plugins[package])
            names |= {*offers["hosts"], *offers["sources"]}
        tables = [f"{package}:COMMANDS" for package in table["packages"]]
        for point in entry_points(group="gansynth.commands"):
            names |= set(point.load()) if point.value in tables else set()
        assert sorted(names) == table["names"], part


def test_a_plugin_of_a_clone_that_a_release_has_too_is_loaded_once():
    assert load_registry([*entry_points(group="gansynth")] * 2).broken == {}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """The wheels of a release, by folder of wheels/, built where no gansynth can be imported."""
    out = tmp_path_factory.mktemp("wheels")
    packages = sysconfig.get_path("purelib")  # without what its .pth files add
    code = f"import sys; sys.path.append({packages!r}); import hatchling.cli as h; h.hatchling()"
    found = {}
    for folder in WHEELS:
        build = [sys.executable, "-S", "-c", code, "build", "-t", "wheel", "-d", out / folder]
        subprocess.run(build, cwd=ROOT / "wheels" / folder, env={}, check=True)
        (found[folder],) = (out / folder).glob("*.whl")
    return found


@pytest.mark.ci
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
    alone.run("gansynth", "fit", "copypaste", "--data", "example:2d", "-o", "run")
    return alone


@pytest.mark.ci
@pytest.mark.slow
def test_the_core_alone_mixes_into_its_own_segmenter(core_alone):
    mixed = ("--data", "example:2d", "--generator", "run", "--ratio", "1:1", "--offline")
    small = ("--set", "steps=2", "--set", "device=cpu", "--bank-size", 4)
    core_alone.run("gansynth", "augment", "--target", "segmenter", *mixed, *small, "-o", "mixed")
    assert "warning" not in core_alone.run("gansynth", "plugins").stderr


ABSENT = {
    "evaluate run": ("parts.not-installed", "lab"),
    "augment --target nnunet --data nnunet:4": ("parts.not-installed", "gansynth"),
    "fit cgan3d --data yolo:data.yaml -o x": ("parts.not-installed", "gansynth"),
    "augment nnunet:004 --ratio 1:1": ("parts.not-installed", "gansynth"),
    "check nnunet:004": ("parts.not-installed", "gansynth"),
    "plugins check yolo": ("parts.not-installed", "gansynth"),
    "prepare nnunet:004": ("parts.not-installed", "gansynth"),
    "options nnunet": ("parts.not-installed", "gansynth"),
    "demo -o demo": ("parts.not-installed", "gansynth"),
    "demo -o phantoms --phantoms tissues": ("phantoms.maps-not-installed", "nilearn"),
}
"""What is typed where gansynth-core is alone -> id, and what to install."""


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("typed", ABSENT)
def test_what_another_distribution_has_says_which(core_alone, typed):
    id, part = ABSENT[typed]
    said = core_alone.run("gansynth", *typed.split(), code=4).stderr
    lines = [line for line in said.splitlines() if not line.startswith("working ")]  # if slow
    assert len(lines) == 1
    assert said.endswith(f"[{id}]\n")
    assert ("pip install nilearn" if part == "nilearn" else f"./wheels/{part} in the clone") in said


@pytest.mark.ci
@pytest.mark.slow
def test_with_the_lab_the_core_prints_a_card_and_with_the_adapters_it_knows_nnunet(
    core_alone, wheels
):
    asked = "import gansynth; print(hasattr(gansynth, 'evaluate'))"
    assert core_alone.run("python", "-c", asked).stdout == "False\n"
    core_alone.pip(wheels["lab"])
    core_alone.run("gansynth", "card", "run")
    needed = described("gansynth").dependencies
    core_alone.link(need for need in needed if not need.startswith("gansynth"))
    core_alone.pip(wheels["gansynth"])
    assert "ok    nnunetv2" in core_alone.run("gansynth", "doctor").stdout
    said = core_alone.run("gansynth", "check", "nnunet:999", code=3)
    assert said.stderr.endswith("[nnunet.no-such-data-set]\n")
    assert "warning" not in core_alone.run("gansynth", "plugins").stderr
