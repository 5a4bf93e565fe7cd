"""Run folders: opened anywhere, refused if anything in them is not what it claims; one holder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gansynth.core.run_folder import manifest_sha256, read_manifest
from gansynth.core.schema import Condition
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import locked


@pytest.fixture(scope="module")
def shared(toy_fit, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "run"
    toy_fit(out, steps=2)
    return out


@pytest.fixture
def run(shared: Path, tmp_path: Path) -> Path:
    """A run of its own for each test, moved from where it was made."""
    shutil.copytree(shared, tmp_path / "moved")
    return tmp_path / "moved"


def change(run: Path, **entries: object) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def draw(folder: Path) -> np.ndarray:
    condition = Condition(labels=np.zeros((32, 32), np.int16))
    return load_run(folder, "cpu").generator.sample([condition], [5])[0].image


def test_a_moved_run_draws_the_same(shared, run):
    assert np.array_equal(draw(run), draw(shared))


def test_the_weights_are_the_averaged_ones(run):
    from safetensors.torch import load_file

    net = load_run(run, "cpu").generator.nets["generator"].state_dict()
    saved = load_file(run / "checkpoints" / "step-00000002" / "ema.safetensors")
    assert all(torch.equal(net[k.partition("/")[2]], v) for k, v in saved.items())
    assert len(saved) == len(net)


def test_a_run_tells_what_it_was_fitted_on(run):
    opened = load_run(run, "cpu")
    assert (opened.lineage.dataset, len(opened.lineage.cases)) == ("toy:2", 12)
    assert (opened.request.kind, opened.edits) == ("toy", ("flip",))
    assert opened.space.size == (32, 32)
    assert opened.schema.channels == ("first", "second")
    assert opened.manifest_sha256 == manifest_sha256(run)


def test_opening_leaves_the_random_state_alone(run):
    before = torch.get_rng_state()
    load_run(run, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_tampered_weights_are_refused(run):
    path = run / "checkpoints" / "step-00000002" / "ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityFault, match=r"ema\.safetensors: SHA-256 is"):
        load_run(run)


def test_missing_weights_are_refused(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(IntegrityFault, match="missing"):
        load_run(run)


def test_weights_of_another_width_are_named(run):
    options = {**read_manifest(run)["options"], "width": 8}
    change(run, options=options)
    with pytest.raises(IntegrityFault, match=r"do not fit .* generator/down\.0"):
        load_run(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"grain": 1}, "grain is 1: Extra inputs"), ({"width": "wide"}, "width is 'wide': .*integer")],
)
def test_options_the_plugin_does_not_know_are_one_line(run, options, message):
    """As of another version of the plugin."""
    change(run, options={**read_manifest(run)["options"], **options})
    with pytest.raises(IntegrityFault, match=message) as fault:
        load_run(run)
    assert "manifest.json: key 'options'" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_weights_outside_the_folder_are_refused(run):
    weights = read_manifest(run)["weights"]
    change(run, weights={**weights, "path": f"../other/{weights['path']}"})
    with pytest.raises(IntegrityFault, match="leads out of"):
        load_run(run)


def test_a_run_without_weights_is_not_finished(run):
    change(run, weights=None)
    with pytest.raises(UsageFault, match="no checkpoint yet"):
        load_run(run)


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(DataFault, match=r"no manifest\.json here.*gansynth fit"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_manifest_is_an_integrity_fault(run, text):
    (run / "manifest.json").write_text(text)
    with pytest.raises(IntegrityFault, match=r"manifest\.json"):
        read_manifest(run)


def test_a_manifest_of_another_version_is_refused(run):
    change(run, version=99)
    with pytest.raises(IntegrityFault, match="'version' is 99, expected 1"):
        read_manifest(run)


def test_a_device_that_is_not_there_is_an_environment_fault(run):
    with pytest.raises(EnvironmentFault, match="cuda:99"):
        load_run(run, "cuda:99")


# -- one process at a time -------------------------------------------------------------------------


def test_a_held_folder_names_its_holder(held):
    folder, holder = held
    with (
        pytest.raises(EnvironmentFault, match=rf"locked by pid {holder.pid} since"),
        locked(folder),
    ):
        pass


def test_a_killed_holder_holds_nothing(held):
    folder, holder = held
    holder.kill()
    holder.wait()
    with locked(folder):
        assert f"pid {holder.pid} " not in (folder / ".holder").read_text()


def test_a_folder_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "run"):
            pass
    assert not (tmp_path / "run" / ".holder").exists()


def test_a_folder_that_cannot_be_made_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="cannot be made"), locked(tmp_path / "file" / "run"):
        pass
