"""What DeepMedicAdapter promises and refuses of its own; nothing is trained here."""

import json
from typing import Any

import pytest

from gansynth.core.capabilities import Capabilities
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.runtime.errors import DataFault
from gansynth.testing import check_host
from gansynth_deepmedic.adapter import DeepMedicAdapter
from tests.adapters.deepmedic.conftest import write_crops
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.adapters.kits import changed_run


@pytest.fixture
def adapter(shared_deepmedic) -> DeepMedicAdapter:
    return DeepMedicAdapter(shared_deepmedic.source())


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> dict[str, str]:
    """Settings that name a program in DeepMedic's place."""
    checkout = write_fake(tmp_path_factory.mktemp("fake"))
    return {"deepmedic": str(checkout), "deepmedic_python": str(checkout / "python")}


@pytest.fixture
def settings(program, shared_deepmedic) -> dict[str, str]:
    return {**program, "model": str(shared_deepmedic.model)}


@pytest.fixture
def augment(refuse, settings, shared_deepmedic, crop_run, tmp_path):
    """A dry run that must be refused: ``augment("--set epochs=0", "epochs")``; ~ parts words."""

    def run(more, says, *, run=crop_run, settings=settings, ratio="1:1"):
        refuse(
            *("augment", "--target", "deepmedic", "--data", f"deepmedic:{shared_deepmedic.train}"),
            *(() if run is None else ("--generator", run)),
            *(f"--set={key}={value}" for key, value in settings.items()),
            *("--device", "cpu", "--ratio", ratio, "--dry-run", "-o", tmp_path / "o"),
            *more.split(),
            code=2,
            says=says.split("~"),
        )
        assert not (tmp_path / "o").exists()

    return run


def test_it_keeps_the_contract_of_adapters(adapter, tmp_path):
    check_host(adapter, workspace=tmp_path).raise_if_failed()


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
def test_what_cannot_be_is_refused(augment, more, says):
    augment(more, says)


def test_resampled_data_are_not_trained_on(augment):
    augment("--read spacing=2", "spacing~native", run=None, ratio="1:0")


def test_what_trains_has_to_be_said(augment, program, monkeypatch):
    augment("", "--export DIR~--deepmedic", settings={})
    augment("-- -dev cpu", "--deepmedic~GANSYNTH_DEEPMEDIC", settings={})
    augment("", "--set model: DeepMedic has no network of its own", settings=program)
    monkeypatch.setenv("GANSYNTH_DEEPMEDIC", program["deepmedic"])
    augment("-- -dev cpu", "-model modelConfig.cfg", settings={})


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"grid": "slice", "size": [16, 16]}, "slices~gansynth fit cgan3d --data deepmedic:"),
        ({"size": [16, 16, 4]}, "(16, 16, 4) voxels~larger size"),
        ({}, "crops from noise~gansynth fit cgan3d~whole volumes"),
    ],
    ids=["slices", "seam", "noise"],
)
def test_samples_without_a_place_in_a_volume_are_refused(augment, crop_run, tmp_path, space, says):
    own = json.loads((crop_run / "manifest.json").read_text())["space"]
    noise = Capabilities(frozenset(), "both").to_json()
    changes: dict[str, Any] = {"space": {**own, **space}} if space else {"capabilities": noise}
    augment("", says, run=changed_run(crop_run, tmp_path / "run", **changes))


def asked(**words: Any) -> AugmentRequest:
    return AugmentRequest(**{"target": "deepmedic", "ratio": "1:1", **words})


def test_samples_of_a_bank_need_a_place_in_a_training_case(
    adapter, settings, shared_deepmedic, tmp_path
):
    adapter.check(asked(bank=write_crops(tmp_path / "bank", shared_deepmedic), set=settings))
    for name, told, says in (
        ("held", {"case": adapter.source.held_out_ids[0]}, "expected one of the training cases"),
        ("noise", {"case": ""}, "is of no case"),
        ("shape", {"shape": [9, 9, 9]}, r"of shape \(9, 9, 9\)"),
    ):
        bank = write_crops(tmp_path / name, shared_deepmedic, 1, **told)
        with pytest.raises(DataFault, match=says):
            adapter.check(asked(bank=bank, set=settings))


def test_a_dry_run_says_what_a_subepoch_holds(adapter, settings, crop_run, tmp_path):
    odd = {**settings, "cases": "7", "output": str(tmp_path / "o")}
    planned = adapter.planned(asked(generator=crop_run, ratio="1:2", set=odd))
    assert planned["cases_per_subepoch"] == {"real": 2, "synthetic": 4}
    assert planned["segments_per_subepoch"] == {"real": 20, "synthetic": 40}
    assert any("7 in the file, 6 now" in said for said in planned["said"])
    planned = adapter.planned(asked(generator=crop_run, schedule="anneal", set=settings))
    assert planned["cases_per_subepoch"] == {"all": 6, "synthetic_at_most": 6}
    assert planned["segments_per_subepoch"] == {"all": 60, "of_each_case": 10}


def test_paths_in_the_programs_own_options_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = DeepMedicAdapter.read_own(["-mod", "m.cfg", "-dev=cuda1", "-resetopt", "-load", "c"])
    paths = {"model": str(tmp_path / "m.cfg"), "load": str(tmp_path / "c")}
    assert read == {**paths, "dev": "cuda1", "resetopt": True}
