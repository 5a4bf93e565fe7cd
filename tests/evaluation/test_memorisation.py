import csv
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.metrics.nearest import _margin
from gansynth.testing import ToySource
from gansynth.training import checkpoint
from gansynth_evaluate.memorisation import (
    discriminator_scores,
    least_margin,
    load_discriminator,
    measure_memory,
    quantiles,
    write_copies,
)
from tests.conftest import content
from tests.evaluation.gatherings import compared, copies, gathered
from tests.expected import raises_fault

SOURCE = ToySource(2)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        # A margin is the nearest over the next person; a copy's must be less than real images'.
        (_margin({"ann": [1.0, 2.0], "bob": [4.0, 3.0]}), 1 / 3),
        (_margin({"ann": [1.0, 2.0]}), 0.5),
        (_margin({}), 1),
        (least_margin(np.array([0.5, 0.6, 0.7, 0.8])), 0.515),
        (least_margin(np.full(20, 0.99)), 0.9),
        (quantiles(np.array([1.0, 2.0, 3.0, np.inf])), [1.1, 1.5, 2.0, 2.5, 2.9]),
        (quantiles(np.array([np.inf])), [None] * 5),
    ],
)
def test_margins_and_quantiles_by_hand(found, wanted):
    assert found == pytest.approx(wanted)


def test_near_copies_are_files_of_their_own_which_do_not_stay(tmp_path):
    found = gathered(copies())
    document, pairs = measure_memory(found, compared(found))
    assert [caption for caption, _ in pairs][:2] == ["sample 0 | toy_00", "sample 1 | toy_01"]
    sample, real = pairs[0][1]
    assert np.abs(sample.image - real.image).max() < 0.2
    pair = {"sample": 3, "case": 'case, of "Jane"', "ratio": 0.1, "own": False}
    document["copies"]["pairs"] = [pair]
    files = write_copies(tmp_path, document, pairs, SOURCE.schema)
    with files["near_copies.csv"].open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in pair.items()}]
    assert files["near_copies.png"].read_bytes().startswith(b"\x89PNG")
    assert write_copies(tmp_path, {"copies": {"pairs": []}}, (), SOURCE.schema) == {}
    assert not list(tmp_path.iterdir())


CPU = torch.device("cpu")
NEWEST, BEFORE = (f"checkpoints/step-0000000{n}" for n in (4, 2))


@pytest.fixture(scope="module")
def run(toy_fit, tmp_path_factory):
    """Four steps of a tiny dcgan on toy cases."""
    folder = tmp_path_factory.mktemp("critic") / "run"
    own = {"width": 4, "latent": 4, "objective": "gan", "diversity": 0}
    toy_fit(folder, generator="dcgan", own=own, edits=None, batch_size=4)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def is_of(critic, step, run, **prefixes):
    """Whether networks are those that were trained up to a step."""
    found: Any = checkpoint.latest(run / "checkpoints")
    assert str(found.folder).endswith(step)
    for name, prefix in prefixes.items():
        own = critic.nets[name].state_dict()
        kept = {k: found.tensors.get(f"{prefix}/{name}/{k}") for k in own}
        same = [torch.equal(own[k], v) for k, v in kept.items() if v is not None]
        assert same
        assert all(same)


def test_every_case_gets_a_number_by_what_was_trained_last_and_nothing_is_written(run):
    before = content(run)
    critic: Any = load_discriminator(run, CPU)
    is_of(critic, NEWEST, run, discriminator="net", generator="ema")
    found: Any = discriminator_scores(critic, [SOURCE.load(i) for i in SOURCE.train_ids])
    assert (found.shape, len(np.unique(found))) == ((12,), 12)
    assert content(run) == before


def damage_all(copy):
    for path in copy.glob("checkpoints/*/tensors.safetensors"):
        path.write_bytes(b"nothing")


def other_weights(copy):
    shutil.copy(copy / BEFORE / "ema.safetensors", copy / NEWEST / "ema.safetensors")


def other_plugin(copy):
    manifest = read_manifest(copy)
    manifest["options"]["d_norm"] = "none"
    write_manifest(copy, manifest)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (damage_all, "training.all-checkpoints-damaged"),
        (other_weights, "files.checksum-differs"),
        (other_plugin, "evaluate.network-tensors-differ"),
    ],
)
def test_checkpoints_that_are_damaged_or_anothers_are_a_fault(copy, spoil, expected):
    spoil(copy)
    with raises_fault(expected):
        load_discriminator(copy, CPU)


@pytest.mark.fault(25)
def test_a_damaged_checkpoint_is_passed_over_and_without_any_there_is_no_discriminator(copy):
    newest = copy / NEWEST / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    is_of(load_discriminator(copy, CPU), BEFORE, copy, discriminator="net")
    for path in copy.glob("checkpoints/*/tensors.safetensors"):
        path.unlink()
    assert load_discriminator(copy, CPU) is None


def test_a_bank_has_no_discriminator_and_any_other_folder_is_refused(tmp_path):
    with raises_fault("run-folder.no-manifest"):
        load_discriminator(tmp_path, CPU)
    (tmp_path / "bank.json").write_text("{}")
    assert load_discriminator(tmp_path, CPU) is None
