"""Generators, banks and options that must not enter nnU-Net: refused dry and real, untouched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.run_folder import write_manifest
from gansynth.core.schema import Sample
from gansynth.core.source import lineage_of
from gansynth.sampling.run_source import open_source
from tests.banks import write_bank
from tests.test_bad_input import cut_in_half, flip_a_bit

DRY = pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])


def augment(toy: Any, run: Path, *more: object) -> tuple[object, ...]:
    """The command that would train; of an option given twice the last one counts.

    Beside a bank there is no --device: nothing is drawn there, so it would be refused.
    """
    kept = ("augment", "--target", "nnunet", *toy.options, "--generator", run, "--ratio", "1:1")
    device = () if "--bank" in more else ("--device", "cpu")
    return (*kept, *device, *more)


VALUES: list[tuple[tuple[object, ...], int, tuple[str, ...]]] = [
    (("--plans", "nnUNetPlans"), 6, ("plans: gansynthSmallPlans, here nnUNetPlans", "--data")),
    (("--data", "example:3d"), 2, ("make one: gansynth import example:3d nnunet:500",)),
    (("-c", "2d"), 6, ("configuration: 3d_fullres, here 2d",)),
    (("--set", "num_epochs=abc"), 2, ("--set num_epochs=abc", "whole number")),
    (("--set", "oversample_foreground_percent=33"), 2, ("=33", "from 0 to 1")),
    (("--schedule", "finetune:10%@80%"), 2, ("--ratio 1:1", "expected --ratio 0:1")),
    (("--device", "cuda:99"), 4, ("cuda:99", "--device auto or cpu")),
    (("--", "--epochs", "3"), 2, ("unrecognized arguments: --epochs 3", "--npz")),
    (("--", "--c"), 2, ("-- --c: the same command resumes by itself", "leave --c out")),
]


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("more", "code", "says"), VALUES, ids=[" ".join(map(str, value[0])) for value in VALUES]
)
@DRY
def test_a_value_that_cannot_be_starts_nothing(
    toy_nnunet, fitted, refuse, monkeypatch, tmp_path, more, code, says, dry
):
    monkeypatch.chdir(tmp_path)
    command = augment(toy_nnunet, fitted, *dry, *more)
    refuse(*command, code=code, says=says, keep=[toy_nnunet.root, fitted, tmp_path])


def test_a_bank_of_a_label_that_the_data_set_lacks_is_refused(toy_nnunet, fitted, refuse, tmp_path):
    source = open_source(toy_nnunet.request())
    image = np.random.default_rng(0).normal(size=(2, *source.space.size)).astype(np.float32)
    labels = np.zeros(source.space.size, np.int16)
    labels[0, 0, 0] = 9
    lineage, pairs = lineage_of(source), [(Sample(image, labels), dict[str, Any]())]
    bank = write_bank(tmp_path / "bank", source.schema, lineage, pairs)
    command = augment(toy_nnunet, fitted, "--bank", bank, "--dry-run")
    says = (str(bank), "label value(s) [9] unknown", "Make the bank again")
    refuse(*command, code=3, says=says, keep=[toy_nnunet.root, bank])


def without_cases(manifest: Path) -> None:
    document = json.loads(manifest.read_text())
    del document["lineage"]
    write_manifest(manifest.parent, document)


WEIGHTS = "checkpoints/*/ema.safetensors"
DAMAGED: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "cut": ("manifest.json", cut_in_half, ("not valid JSON", "fit the run again")),
    "lacks a key": ("manifest.json", without_cases, ("key 'lineage' is missing", "fit the run")),
    "weights": (WEIGHTS, flip_a_bit, ("ema.safetensors", "SHA-256", "expected")),
}


@pytest.mark.fault(3, 26)
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_run_is_refused_by_all_who_read_it(toy_nnunet, fitted, refuse, tmp_path, how):
    file, spoil, says = DAMAGED[how]
    run = shutil.copytree(fitted, tmp_path / "run")
    spoil(max(run.glob(file)))
    for command in (
        ("sample", run, "-n", 1, "-o", tmp_path / "out"),
        augment(toy_nnunet, run),
        augment(toy_nnunet, run, "--dry-run"),
    ):
        refuse(*command, code=6, says=says, keep=[toy_nnunet.root, run])
