"""What DeepMedicAdapter promises and refuses of its own; nothing is trained here."""

import re
import shlex
from typing import Any

import pytest

from gansynth.core.capabilities import Capabilities
from gansynth_deepmedic.adapter import DeepMedicAdapter
from tests.adapters.deepmedic.conftest import write_crops
from tests.adapters.kits import kit_of
from tests.expected import raises_fault


@pytest.fixture
def kit(request, tmp_path) -> Any:
    return kit_of("deepmedic", tmp_path, request.getfixturevalue)


@pytest.fixture
def refused(kit, refuse):
    """The dry run ends in one line: ``refused("--set epochs=0", "epochs")``; ~ parts words."""

    def run(more, says, *, samples=("--generator", kit.run), to=kit.to, ratio="1:1"):
        words = ("augment", "--target", "deepmedic", *kit.place, *samples, "--ratio", ratio, *to)
        said = refuse(*words, "--dry-run", *more.split(), code=2, says=says.split("~"))
        assert not kit.output.exists()
        return said.stderr

    return run


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--set epoch=3", "--set epoch~Did you mean 'epochs'?"),
        ("--set affine=nan", "--set affine=nan: expected a number"),
        ("--fold all", "--fold all~expected fold 0"),
        ("--boxes training", "--boxes: samples are inserted~Leave --boxes out"),
        ("-- -dev gpu", "-- -dev gpu~cuda"),
        ("-- -train t.cfg", "-- -train: --data sets the training data~augment only trains"),
        ("-- -width 3", "-- ~-width 3; expected options of deepMedicRun"),
    ],
)
def test_what_cannot_be_is_refused(refused, more, says):
    refused(more, says)


def test_resampled_data_are_not_trained_on(refused):
    refused("--read spacing=2", "spacing~native", samples=(), ratio="1:0")


def test_what_trains_has_to_be_said(kit, refused, monkeypatch):
    bare = ("-o", kit.output)
    refused("", "--export DIR~--deepmedic", to=bare)
    refused("-- -dev cpu", "--deepmedic~GANSYNTH_DEEPMEDIC", to=bare)
    checkout = kit.program["deepmedic"]
    of_program = f"--set deepmedic={checkout}"
    refused(of_program, "--set model: DeepMedic has no network of its own", to=bare)
    monkeypatch.setenv("GANSYNTH_DEEPMEDIC", checkout)
    refused("-- -dev cpu", "-model modelConfig.cfg", to=bare)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"grid": "slice", "size": [16, 16]}, "slices"),
        ({"size": [16, 16, 4]}, "(16, 16, 4) voxels~larger size"),
        ({}, "crops from noise~whole volumes"),
    ],
    ids=["slices", "seam", "noise"],
)
def test_samples_without_a_place_in_a_volume_are_refused(kit, refused, run_cli, space, says):
    """The fit that the message names is typed."""
    noise = Capabilities(frozenset(), "both").to_json()
    changes: dict[str, Any] = {"capabilities": noise}
    if space:
        changes = {"space": {**kit.manifest["space"], **space}}
    said = refused("", says, samples=("--generator", kit.changed(**changes)))
    (fit,) = re.findall(r"gansynth (fit .+?)(?=\)|, or| \[)", said)
    assert run_cli(*shlex.split(fit), "--dry-run", "-q", "--set", "width=4").exit_code == 0


def test_samples_of_a_bank_need_a_place_in_a_training_case(kit, shared_deepmedic, tmp_path):
    held = kit.intake().source.held_out_ids[0]
    bank = write_crops(tmp_path / "bank", shared_deepmedic)
    kit.session(bank=bank, set=kit.program).check()
    bank = write_crops(tmp_path / "held", shared_deepmedic, 1, case=held)
    with raises_fault("deepmedic.sample-does-not-fit-case"):
        kit.session(bank=bank, set=kit.program).check()


def test_a_dry_run_says_what_a_subepoch_holds(kit, tmp_path):
    odd = {**kit.program, "cases": "7", "output": str(tmp_path / "o")}
    planned = kit.session(generator=kit.run, ratio="1:2", set=odd).planned()
    assert planned["cases_per_subepoch"] == {"real": 2, "synthetic": 4}
    assert planned["segments_per_subepoch"] == {"real": 20, "synthetic": 40}
    assert any("7 in the file, 6 now" in said for said in planned["said"])
    planned = kit.session(generator=kit.run, schedule="anneal", set=kit.program).planned()
    assert planned["cases_per_subepoch"] == {"all": 6, "synthetic_at_most": 6}
    assert planned["segments_per_subepoch"] == {"all": 60, "of_each_case": 10}


def test_paths_in_the_programs_own_options_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = DeepMedicAdapter.read_own(["-mod", "m.cfg", "-dev=cuda1", "-resetopt", "-load", "c"])
    paths = {"model": str(tmp_path / "m.cfg"), "load": str(tmp_path / "c")}
    assert read == {**paths, "dev": "cuda1", "resetopt": True}
