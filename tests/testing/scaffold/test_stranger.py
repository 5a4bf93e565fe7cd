"""What `gansynth plugins new` writes: it works, in this process and as somebody else's package."""

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from scipy.ndimage import gaussian_filter

import gansynth
from gansynth.core.edit import EditContext
from gansynth.core.hookspecs import API_VERSION
from gansynth.core.registry import KINDS as REGISTRY_KINDS
from gansynth.core.registry import Registry, installed
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.fitting.recipe import read_recipe
from gansynth.runtime.progress import NullReporter
from gansynth.testing import (
    ToySource,
    check_edit,
    check_filter,
    check_generator,
    check_host,
    check_writer,
)
from gansynth.testing.scaffold.project import KINDS, plan_project, write_project
from tests.benchmark.people import plan_of
from tests.offered import offered

ROOT = Path(__file__).parents[3]
LINES = {kind: 44 for kind in KINDS} | {"host": 88, "generator": 70, "source": 61, "metric": 35}
NAMES = {kind: f"my_{kind}" for kind in KINDS}


def code_lines(text: str) -> int:
    """Lines that are neither blank nor a comment."""
    lines = [line.strip() for line in text.splitlines()]
    return len([line for line in lines if line and not line.startswith("#")])


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("projects")
    for kind, name in NAMES.items():
        write_project(plan_project(name, kind, base / kind))
    return {kind: base / kind for kind in NAMES}


@pytest.fixture
def joined(projects, monkeypatch):
    added = []
    try:
        for kind, name in NAMES.items():
            monkeypatch.syspath_prepend(str(projects[kind]))
            installed().add(importlib.import_module(f"gansynth_{name}"), name)
            added.append(name)
        assert installed().broken == {}
        yield
    finally:
        for name in added:
            installed().remove(name)
        for module in [m for m in sys.modules if m.startswith("gansynth_my_")]:
            del sys.modules[module]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_one_folder_of_little_code_that_imports_nothing_heavy(projects, kind):
    modules = list((projects[kind] / f"gansynth_{NAMES[kind]}").glob("*.py"))
    assert sum(code_lines(path.read_text()) for path in modules) <= LINES[kind]
    (start,) = (path.read_text() for path in modules if path.name == "__init__.py")
    imported = re.findall(r"^(?:from|import) (\w+)", start, re.MULTILINE)
    assert set(imported) == {"importlib", "typing", "gansynth"}
    texts = [p.read_text() for p in projects[kind].rglob("*") if p.is_file()]
    assert [text for text in texts if "{{" in text or "}}" in text] == []  # nothing is unfilled


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_passes_the_tests_that_it_came_with(joined, projects, kind, tmp_path):
    if kind == "generator":  # its own test trains for longer, on volumes, too
        cls = installed().generator("my_generator")
        check_generator(cls, ndim=(2,), steps=25, options={"width": 8}).raise_if_failed()
        return
    path = projects[kind] / "tests" / f"test_{NAMES[kind]}.py"
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), path, "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        wants_folder = "tmp_path" in inspect.signature(test).parameters
        test(**({"tmp_path": tmp_path} if wants_folder else {}))


COMMANDS = {
    "generator": "fit my_generator --data example:2d -o {out} --device cpu --set steps=2",
    "edit": "sample {run} -n 2 -o {out} --edit my_edit",
    "filter": "sample {run} -n 2 -o {out} --filter my_filter:share=0.1",
    "metric": "sample {run} -n 2 -o {out} --metric my_metric",
    "writer": "sample {run} -n 2 -o {out} --format my_writer",
    "source": "cache my_source:{data} --read folds=2 -o {out}",
    "host": "augment --target my_host --data example:2d --ratio 1:0 --set steps=2 --set device=cpu",
}
"""One command for each kind, which uses what was written."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("run") / "run"
    small = {"steps": "1", "width": "4", "d_width": "4", "levels": "1", "d_levels": "1"}
    how: dict[str, Any] = {"settings": small, "edits": None, "reporter": NullReporter()}
    fit("cgan3d", SourceRequest("example", "2d"), folder, device="cpu", **how)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_of_each_kind_is_listed_has_its_options_printed_and_works_in_a_command(
    joined, run, kind, tmp_path, run_json, monkeypatch
):
    name = NAMES[kind]
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        np.savez(tmp_path / f"case_{number}.npz", image=np.ones((1, 24, 24)), labels=np.eye(24))

    assert run_json("plugins", "list")["found"][f"{kind}s"][name] == name
    (first, *_) = run_json("options", name)["tables"]
    loaded = installed().load(f"{kind}s", name)
    model = getattr(loaded, "Options", None) or getattr(loaded, "read_options", None)
    assert [row["key"] for row in first["options"]] == list(model.model_fields if model else ())
    assert all(row["meaning"] for row in first["options"])
    assert run_json(*COMMANDS[kind].format(run=run, out=tmp_path / "out", data=tmp_path).split())


GUIDE = "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("plugin*.md")))
EXAMPLES = dict(re.findall(r"^## register_(\w+)\n.*?^```python\n(.*?)^```", GUIDE, re.M | re.S))


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Registers a section's example; returns what is registered there under a name."""

    def load(kind: str, name: str) -> Any:
        module = ModuleType(f"example_{kind}")
        module.__file__ = str(tmp_path / "example.py")
        exec(compile(EXAMPLES[kind], f"docs/plugin_*.md, register_{kind}", "exec"), vars(module))
        registry = Registry()
        registry.add(module, "example")
        assert registry.broken == {}
        return registry.load(kind, name)

    return load


def test_the_examples_of_a_generator_a_host_and_a_writer_work(example, tmp_path):
    assert set(EXAMPLES) == set(REGISTRY_KINDS)
    check_generator(example("generators", "means"), ndim=(2, 3), steps=0).raise_if_failed()
    host = example("hosts", "nearest-mean")
    check_host(host, ToySource(), workspace=tmp_path).raise_if_failed()
    assert example("trials", "nearest-mean")(host).strong_augmentation({}) == ({"steps": "40"}, ())
    check_writer(example("writers", "arrays")).raise_if_failed()


def test_the_example_of_a_command_is_found_by_the_name_of_its_host(run_cli):
    module = ModuleType("example_commands")
    exec(compile(EXAMPLES["commands"], "docs/plugin_*.md, register_commands", "exec"), vars(module))
    installed().add(module, "example")
    try:
        done = run_cli("prepare", "nearest-mean:toy", "--set", "naps=2", "--json")
    finally:
        installed().remove("example")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"data": "toy", "naps": 2}


def test_the_example_of_a_source_gives_cases_that_can_be_checked(example, tmp_path):
    for part, count in (("train", 3), ("validation", 2)):
        (tmp_path / part).mkdir()
        for number in range(count):
            image, labels = np.zeros((1, 20, 20)), np.eye(20)
            np.savez(tmp_path / part / f"{part}_{number}.npz", image=image, labels=labels)
    (tmp_path / "train" / "torn.npz").touch()
    request = SourceRequest("npz", str(tmp_path))
    source = example("sources", "npz")(request)
    assert [len(ids) for ids in (source.train_ids, source.held_out_ids)] == [4, 2]
    assert source.load("validation_1").labels.dtype == np.int16
    found = example("checks", "npz")(request, lambda done, total: None)
    assert (found.cases, [finding.case for finding in found.findings]) == (6, ["torn"])


def test_the_examples_of_an_edit_and_a_metric_do_what_they_say(example):
    source, edit = ToySource(), example("edits", "forget")()
    check_edit(type(edit)).raise_if_failed()
    labels = source.load("toy_00").labels
    assert labels is not None
    context = EditContext(labels, source.schema)
    params = edit.draw(context, np.random.default_rng(0))
    edited = edit.apply(context, params).labels
    assert set(np.unique(labels)) - set(np.unique(edited)) == {params["label"]}
    real = list(map(source.load, source.train_ids))
    flat = [Sample(case.image * np.float32(0.5), case.labels) for case in real]
    metric = example("metrics", "contrast")()
    assert list(metric.measure(flat, real, source.schema).values()) == pytest.approx([0.5, 0.5])


def test_the_example_of_a_filter_keeps_blurred_samples_out(example, tmp_path):
    source, cls = ToySource(), example("filters", "sharp")
    check_filter(cls).raise_if_failed()
    judge, image = cls(), source.load("toy_12").image
    judge.load({"usual": 0.2}, tmp_path, source.schema, "cpu")
    assert judge.judge(Sample(image), None).reject_reason == ""
    blurred = gaussian_filter(image, (0, 2, 2, 2))
    assert judge.judge(Sample(blurred), None).reject_reason.startswith("sharpness 0.")


def yaml_under(heading: str) -> str:
    found = re.search(r"^```yaml\n(.*?)^```", GUIDE.partition(heading)[2], re.M | re.S)
    assert found is not None
    return found[1]


def test_the_examples_of_an_arm_and_a_recipe_can_be_used(example, tmp_path):
    (tmp_path / "narrow.yaml").write_text(yaml_under("## register_arms"))
    with offered("narrower", arms={"narrow": example("arms", "narrow")}):
        plan = plan_of(arms=["default", "narrow"])
        assert plan.generator(str(plan.arm("narrow").generator)).set == {"width": "16"}
    (tmp_path / "mine2026.yaml").write_text(yaml_under("## register_recipes"))
    recipe = read_recipe(example("recipes", "mine2026"))
    recipe.check()
    assert recipe.alone


def test_what_the_guide_says_of_the_interface_is_so():
    assert f"`gansynth.API_VERSION`, now {API_VERSION}." in GUIDE
    public = GUIDE.partition("**Public**")[2].partition("These are all")[0]
    rows = re.findall(r"^\|.*\|$", public, re.M)
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(gansynth.__all__)
    for module in re.findall(r"`(gansynth\.[\w.]+)`", public):
        importlib.import_module(module)


class Environment:
    """A virtual environment that sees this one's libraries, but not its gansynth.

    Args:
        needed: requirements; of the libraries it sees those alone, and what they need.
    """

    def __init__(self, folder: Path, needed: Iterable[str] | None = None) -> None:
        self.bin = folder / "bin"
        self.work = folder / "work"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.work.mkdir()
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        if needed is None:
            # As a path, not as a site folder: the editable install's own .pth is not looked at.
            path = self.site / "libraries.pth"
            path.write_text(sysconfig.get_path("purelib") + "\n")
        else:
            self.link(needed)
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
        self.environ["PATH"] = f"{self.bin}{os.pathsep}{os.environ['PATH']}"

    def link(self, requirements: Iterable[str]) -> None:
        """Let it see libraries, and what they need."""
        wanted, seen = [Requirement(text) for text in requirements], set[str]()
        while wanted:
            one = wanted.pop()
            if one.name in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
                continue
            seen.add(one.name)
            found = distribution(one.name)
            wanted += map(Requirement, found.requires or ())
            for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(Path(str(found.locate_file(top))))

    def pip(self, *what: object) -> None:
        """Install from folders and files alone, without any network."""
        offline = ("--no-deps", "--no-index", "--no-build-isolation", "-q")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        self._run([*pip, *offline, *map(str, what)])

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self._run([str(self.bin / str(words[0])), *map(str, words[1:])], code)

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self.bin / str(words[0])), *map(str, words[1:])],
            cwd=self.work,
            env=self.environ,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _run(self, words: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=self.work, env=self.environ, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("clean"))
    environment.pip(ROOT)
    where = environment.run("python", "-c", "import gansynth; print(gansynth.__file__)").stdout
    assert not where.startswith(str(ROOT))
    return environment


TUTORIAL = re.compile(r"<!-- tutorial -->\n```\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_tutorial_work_in_their_order(clean):
    """docs/plugins.md, from an empty folder to samples that a host is trained on."""
    blocks = TUTORIAL.findall(GUIDE)
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.strip()]
    said = []
    for words in commands:
        if words[:2] == ["pip", "install"]:
            clean.pip(*words[2:])
        else:
            said.append((words, clean.run(*words)))
    ran = {" ".join(words[:2]) for words, _ in said}
    assert {"gansynth fit", "gansynth sample", "gansynth augment", "gansynth plugins"} <= ran
    assert list((clean.work / "runs/blobs/samples/seed-0/labels").iterdir())
