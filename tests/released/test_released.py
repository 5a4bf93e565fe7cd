"""What each released version has left is used by today's code, and what a later one will, refused.

A folder of a version is made by ``python -m tests.released``; each one is tested as the others are.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from packaging.version import Version
from torch.utils.data import DataLoader

import gansynth
from gansynth.runtime.version import __version__, build, check_format
from gansynth.sampling.filters.fitted import build_filters, folder_of
from gansynth_cli.main import cli
from gansynth_segmenter import load_segmenter
from tests.expected import raises_fault
from tests.flat_sets import pictures
from tests.released.__main__ import DATA, HERE, RUN

VERSIONS = sorted([path.name for path in HERE.glob("[0-9]*")], key=Version)
LATER = "99.1.0"


def typed(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(params=VERSIONS)
def kept(request, tmp_path) -> Path:
    """What a version has left, and the pictures that its plan names."""
    folder = Path(shutil.copytree(HERE / request.param, tmp_path / "kept"))
    pictures(folder / "shapes")
    return folder


def test_a_run_is_opened_and_sampled(kept):
    samples = gansynth.load(kept / "run").sample(2, seed=1)
    assert all(np.isfinite(sample.image).all() for sample in samples)


def test_a_fit_goes_on(kept):
    steps = RUN["steps"] + 2
    run = gansynth.fit(
        "cgan3d", data=DATA, out=kept / "run", device="cpu", **{**RUN, "steps": steps}
    )
    assert run.report["steps"] == steps
    lines = (kept / "run" / "metrics.csv").read_text().splitlines()
    assert lines[-1].startswith(f"{steps},")
    assert len(lines) == 2  # steps from the checkpoint on


def test_a_bank_is_mixed_in(kept):
    source = gansynth.load(kept / "run").source
    real = [{"image": source.load(case).image} for case in source.train_ids]
    mixed = gansynth.mix(real, kept / "bank", "0:1", held_out=source.held_out_ids)
    (batch,) = DataLoader(mixed, batch_size=len(real))
    assert batch["image"].shape == (len(real), *real[0]["image"].shape)


def test_a_plan_runs_and_its_results_are_read(kept):
    plan, results = kept / "plan.yaml", kept / "results.json"
    done = typed("benchmark", plan, "--dry-run", "--no-probe", "--cache", results)
    assert done.exit_code == 0, done.output
    done = typed("card", results, "--methods")
    assert done.exit_code == 0, done.output
    assert json.loads(results.read_text())["gansynth"].partition(",")[0] in done.output


def later(path: Path, document: dict[str, Any], *keys: str) -> None:
    """Write a document as a later version would: with its own version under a key."""
    at = document
    for key in keys:
        at = at.setdefault(key, {})
    at["gansynth"] = LATER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def later_cache(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"gansynth cache": 1, "gansynth": LATER})


def of(folder: Path, name: str) -> Any:
    return yaml.safe_load((folder / name).read_text())


(NOVEL,) = build_filters(["novel"])
LATER_KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "run": (
        lambda f: later(f / "run/manifest.json", of(f, "run/manifest.json"), "versions"),
        "sample {}/run -n 1",
    ),
    "bank": (
        lambda f: later(f / "bank/bank.json", of(f, "bank/bank.json")),
        f"check {DATA} --bank {{}}/bank",
    ),
    "plan": (
        lambda f: later(f / "plan.yaml", of(f, "plan.yaml") | {"unheard": "of"}),
        "benchmark {}/plan.yaml --dry-run",
    ),
    "results": (
        lambda f: later(f / "results.json", of(f, "results.json")),
        "card {}/results.json --methods",
    ),
    "training": (
        lambda f: later(f / "nn/gansynth_session.json", {"sessions": [{"target": "x"}]}),
        "card {}/nn --methods",
    ),
    "study": (
        lambda f: later(f / "run/turing/study/study.json", {"version": 5}),
        "turing-test {}/run -n 4",
    ),
    "filter": (
        lambda f: later(folder_of(f / "run", NOVEL) / "filter.json", {"version": 1}),
        "sample {}/run -n 1 --filter novel",
    ),
    "recipe": (
        lambda f: later(f / "fits/recipe.json", {"version": 1}),
        f"fit dcgan --recipe han2018-wgan --data {DATA} -o {{}}/fits",
    ),
    "cache": (lambda f: later_cache(f / "cases.h5"), "check h5:{}/cases.h5"),
}


@pytest.mark.parametrize("kind", LATER_KINDS)
def test_a_file_of_a_later_version_is_refused_in_one_line_with_both_and_the_way_out(kind, tmp_path):
    make, words = LATER_KINDS[kind]
    shutil.copytree(HERE / VERSIONS[-1], tmp_path, dirs_exist_ok=True)
    make(tmp_path)
    done = typed(*words.format(tmp_path).split())
    assert done.exit_code == 6, done.output
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert "[version.format-differs]" in line
    assert f"made by gansynth {LATER}, read by gansynth {build()}; " in line
    assert f"use gansynth {LATER} or later" in line


def test_a_segmenter_of_a_later_version_is_refused(tmp_path):
    later(tmp_path / "segmenter.json", {})
    with raises_fault("version.format-differs", names=LATER):
        load_segmenter(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("found", "made", "read"),
    [
        (3, f"{__version__}, commit 0123456789", True),
        (3, ".".join([*__version__.split(".")[:2], "99"]), True),
        (3, "0.1.0", True),
        (3, None, True),
        (3, "of somebody", True),
        (3, f"{LATER}rc1", False),
        (4, __version__, False),
        (2, "0.1.0", False),
        (None, None, False),
    ],
)
def test_the_number_of_a_format_and_the_minor_version_decide(found, made, read):
    with nullcontext() if read else raises_fault("version.format-differs", names="a.json"):
        check_format("a.json", found, 3, made, "make it again")
