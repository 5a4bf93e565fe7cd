"""How real a discriminator finds cases, and where a run keeps it."""
# mypy: disallow-untyped-calls=False

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.evaluation.memory import load_critic, realness
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import write_json_atomic
from gansynth.testing import ToySource
from gansynth.training import checkpoint
from tests.conftest import content

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(toy_fit, tmp_path_factory):
    """Six steps of a tiny dcgan on toy cases."""
    folder = tmp_path_factory.mktemp("critic") / "run"
    own = {"width": 4, "latent": 4, "objective": "gan", "diversity": 0}
    toy_fit(folder, generator="dcgan", own=own, edits=None, steps=6, batch_size=4)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def cases() -> list[Any]:
    source = ToySource(2)
    cut = CaseBatches(CaseCache(source), source.space)
    return [cut.cut(i, np.random.default_rng(0)) for i in source.train_ids]


def test_it_has_the_discriminator_that_was_trained_last_and_the_averaged_generator(run):
    critic = load_critic(run, CPU)
    found = checkpoint.latest(run / "checkpoints")
    assert critic is not None
    assert found is not None
    assert found.folder.name == "step-00000006"
    for name, prefix in (("discriminator", "net"), ("generator", "ema")):
        own = critic.nets[name].state_dict()
        kept = {k: found.tensors.get(f"{prefix}/{name}/{k}") for k in own}
        assert all(torch.equal(own[k], v) for k, v in kept.items() if v is not None)
        assert any(v is not None for v in kept.values())


def test_every_case_gets_a_number_and_nothing_is_written(run):
    before = content(run)
    critic = load_critic(run, CPU)
    assert critic is not None
    found = realness(critic, cases())
    assert found is not None
    assert found.shape == (12,)
    assert len(np.unique(found)) == 12
    assert content(run) == before


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(copy):
    newest = copy / "checkpoints" / "step-00000006" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    before = checkpoint.latest(copy / "checkpoints")
    critic = load_critic(copy, CPU)
    assert before is not None
    assert critic is not None
    assert before.folder.name == "step-00000004"
    own = critic.nets["discriminator"].state_dict()
    assert all(torch.equal(v, before.tensors[f"net/discriminator/{k}"]) for k, v in own.items())


def test_checkpoints_that_are_all_damaged_are_a_fault(copy):
    for path in copy.glob("checkpoints/*/tensors.safetensors"):
        path.write_bytes(b"nothing")
    with pytest.raises(IntegrityFault, match="every checkpoint is damaged"):
        load_critic(copy, CPU)


def test_weights_that_are_not_the_manifests_are_a_fault(copy):
    weights = copy / "checkpoints" / "step-00000006" / "ema.safetensors"
    shutil.copy(copy / "checkpoints" / "step-00000004" / "ema.safetensors", weights)
    with pytest.raises(IntegrityFault, match="SHA-256"):
        load_critic(copy, CPU)


def test_a_discriminator_of_another_plugin_is_a_fault(copy):
    from gansynth.core.run_folder import MANIFEST, read_manifest

    manifest = read_manifest(copy)
    manifest["options"]["d_norm"] = "none"
    write_json_atomic(copy / MANIFEST, manifest)
    with pytest.raises(IntegrityFault, match="do not fit network 'discriminator', first"):
        load_critic(copy, CPU)


@pytest.mark.parametrize("pattern", ["checkpoints/*", "checkpoints/*/tensors.safetensors"])
def test_a_run_whose_checkpoints_were_removed_has_none(copy, pattern):
    for path in copy.glob(pattern):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert load_critic(copy, CPU) is None


def test_a_generator_without_networks_has_none(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="copypaste", own={}, edits=None)
    assert load_critic(tmp_path / "run", CPU) is None


def test_a_bank_has_none_and_any_other_folder_is_refused(tmp_path):
    with pytest.raises(DataFault, match=r"no manifest\.json here"):
        load_critic(tmp_path, CPU)
    (tmp_path / "bank.json").write_text("{}")
    assert load_critic(tmp_path, CPU) is None


def test_cases_without_what_it_is_told_get_no_number(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", steps=1)
    critic = load_critic(tmp_path / "run", CPU)
    assert critic is not None
    asked = cases()
    assert realness(critic, asked) is not None
    assert realness(critic, [replace(case, labels=None) for case in asked]) is None
