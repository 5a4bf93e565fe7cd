"""What a fit would cost, and the choice of patch, width and checkpointing for a memory."""

import json
import subprocess
import sys
from typing import Any

import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting import cost
from gansynth.fitting.cost import fit_into, parse_bytes
from gansynth.fitting.setup import resolve
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.progress import NullReporter


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("1.5 GiB", 3 << 29), ("800m", 800 * 10**6), ("4096", 4096)],
)
def test_sizes_are_read_as_they_are_written(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "", "-1GB", "0", "16 apples", "1.2.3GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageFault, match=r"--fit-memory .*expected a size, for example 16GB"):
        parse_bytes(text)


# -- the choice, with memories as if measured ------------------------------------------------------


TOY = SourceRequest("toy", "3")


@pytest.fixture
def choose(toy_source, monkeypatch, tmp_path):
    """``choose(memory, settings)`` where a step's memory is what the settings would make it."""

    def memory(generator, request, settings, edits, device) -> dict[str, Any]:
        edge = json.loads(settings.get("patch", "[16]"))[0] / 16
        width = int(settings.get("width", 32)) / 32
        share = edge**3 * width * (0.6 if settings.get("checkpointing") == "true" else 1.0)
        return {"memory_mib": round(100 + 1000 * share), "memory_before_mib": 100}

    monkeypatch.setattr(cost, "_measure_apart", memory)
    monkeypatch.setattr(cost, "SMALLEST_PATCH", 8)

    def run(mib: float, settings: dict[str, str] | None = None) -> dict[str, str]:
        asked = ("cgan3d", TOY, settings or {}, None, "cpu")
        return fit_into(*asked, int(mib * 2**20), tmp_path / "run", NullReporter())

    return run


@pytest.mark.parametrize(
    ("mib", "chosen"),
    [
        (1100, {}),
        (1099, {"checkpointing": "true"}),
        (700, {"checkpointing": "true"}),
        (600, {"checkpointing": "true", "patch": "[8, 8, 8]"}),
        (150, {"checkpointing": "true", "patch": "[8, 8, 8]", "width": "16", "d_width": "16"}),
    ],
)
def test_the_gentlest_change_that_fits_is_taken(choose, mib, chosen):
    assert choose(mib) == chosen


def test_what_the_user_has_set_stays(choose):
    assert choose(600, {"patch": "[16, 16, 16]"}) == {
        "patch": "[16, 16, 16]",
        "checkpointing": "true",
        "width": "16",
        "d_width": "16",
    }


def test_nothing_that_fits_is_said_with_what_was_tried(choose):
    with pytest.raises(
        EnvironmentFault, match=r"nothing fits 99 MiB \(as asked: 1100 MiB.*100 MiB"
    ):
        choose(99)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("[17, 16, 16]", "patch=17,16,16: expected 3 whole numbers .* none above 16,16,16"),
        ("[16, 16]", "patch=16,16: expected 3 whole numbers .* none above 16,16,16"),
        ("[0, 8, 8]", r"patch=\[0, 8, 8\]: expected a number greater than or equal to 1"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(toy_source, patch, says):
    with pytest.raises(UsageFault, match=f"--set {says}"):
        resolve("cgan3d", TOY, {"patch": patch}, None, "cpu")


def test_training_crops_are_as_large_as_asked_and_samples_are_whole(toy_source):
    settings = {"patch": "[8, 8, 8]", "width": "4", "d_width": "4"}
    job = resolve("cgan3d", TOY, settings, None, "cpu")
    from gansynth.core.generator import Stage

    assert job.batches(0, Stage(), range(2)).image.shape == (2, 2, 8, 8, 8)
    assert job.crops(0, Stage(), range(2)).image.shape == (2, 2, 16, 16, 16)


# -- for real --------------------------------------------------------------------------------------


def fit(toy: Any, *more: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "gansynth_cli", "fit", "cgan3d", *toy.options]
    command += ["--json", "-q", "--device", "cpu", *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
def test_a_dry_run_comes_within_a_third_of_what_happens(toy_nnunet, tmp_path):
    asked = ("-o", tmp_path / "run", "--set=steps=150", "--set=batch_size=2", "--set=width=32")
    expected = fit(toy_nnunet, *asked, "--dry-run")
    assert not (tmp_path / "run").exists()
    happened = fit(toy_nnunet, *asked)
    for key, real in (("estimated_seconds", "total_seconds"), ("memory_mib", "memory_mib")):
        assert expected[key] == pytest.approx(happened[real], rel=0.3), key


@pytest.mark.slow
def test_a_memory_is_kept_to(toy_nnunet, tmp_path):
    asked = ("-o", tmp_path / "run", "--set=steps=4", "--set=batch_size=8")
    free = fit(toy_nnunet, *asked, "--dry-run")
    budget = (free["memory_mib"] + free["memory_before_mib"]) // 2
    bound = fit(toy_nnunet, *asked, "--fit-memory", f"{budget}MiB")
    assert bound["memory_mib"] <= budget * 1.05
    again = fit(toy_nnunet, *asked, "--fit-memory", f"{budget}MiB")  # the same run, resumed
    assert again["resumed_at"] == 4


def test_the_command_line_refuses_what_is_no_size(refuse, tmp_path):
    asked = ("fit", "cgan3d", "--data", "nnunet:1", "-o", tmp_path / "r", "--fit-memory", "x")
    refuse(*asked, code=2, says=["--fit-memory 'x'", "16GB"])
