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

DRY = pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])


def augment(toy: Any, run: Path, *more: object) -> tuple[object, ...]:
    """The command that would train; of an option given twice the last one counts.

    Beside a bank there is no --device: nothing is drawn there, so it would be refused.
    """
    kept = ("augment", "--target", "nnunet", *toy.options, "--generator", run, "--ratio", "1:1")
    device = () if "--bank" in more else ("--device", "cpu")
    return (*kept, *device, *more)


VALUES: list[tuple[tuple[object, ...], int, tuple[str, ...]]] = [
    (("--plans", "nnUNetPlans"), 6, ("plans: 'gansynthSmallPlans' != 'nnUNetPlans'", "--data")),
    (("--data", "example:3d"), 2, ("make one: gansynth import example:3d nnunet:500",)),
    (("-c", "2d"), 6, ("configuration: '3d_fullres' != '2d'",)),
    (("--set", "num_epochs=abc"), 2, ("--set num_epochs=abc", "whole number")),
    (("--set", "oversample_foreground_percent=33"), 2, ("=33", "from 0 to 1")),
    (("--schedule", "finetune:10%@80%"), 2, ("--ratio 1:1", "expected --ratio 0:1")),
    (("--device", "cuda:99"), 4, ("cuda:99", "--device auto or cpu")),
    (("--", "--epochs", "3"), 2, ("unrecognized arguments: --epochs 3", "--npz")),
    (("--", "--c"), 2, ("-- --c: the same command goes on by itself", "leave --c out")),
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


def cut(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text[: len(text) // 2])


def manifest(**changes: Any) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        document = {**json.loads((run / "manifest.json").read_text()), **changes}
        write_manifest(run, {k: v for k, v in document.items() if v})

    return spoil


def weights(run: Path) -> None:
    path = max(run.glob("checkpoints/*/ema.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


DAMAGED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "cut": (cut, ("manifest.json", "not valid JSON", "fit the run again")),
    "lacks a key": (manifest(lineage=None), ("key 'lineage' is missing", "fit the run again")),
    "weights": (weights, ("ema.safetensors", "SHA-256", "expected")),
}


@pytest.mark.fault(3, 26)
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_run_is_refused_by_all_who_read_it(toy_nnunet, fitted, refuse, tmp_path, how):
    spoil, says = DAMAGED[how]
    run = shutil.copytree(fitted, tmp_path / "run")
    spoil(run)
    for command in (
        ("sample", run, "-n", 1, "-o", tmp_path / "out"),
        augment(toy_nnunet, run),
        augment(toy_nnunet, run, "--dry-run"),
    ):
        refuse(*command, code=6, says=says, keep=[toy_nnunet.root, run])
