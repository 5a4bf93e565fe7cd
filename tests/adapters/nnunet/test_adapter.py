import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gansynth.bank.producer_count import shares_of_cores
from gansynth.core.lineage import CaseRecord
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.space import Space
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth.hosts.contract.session import Session
from gansynth.runtime import processes
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.processes import ProcessResult
from gansynth.sampling import evaluation_data
from gansynth_nnunet.converter import sample_bytes
from gansynth_nnunet.intake import NnunetIntake
from gansynth_nnunet.launch import from_environment
from gansynth_nnunet.results import newest_checkpoint, own_metrics
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.workers import workers
from tests.expected import raises_fault

# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def source(toy_nnunet):
    return NnunetSource(toy_nnunet.request())


def session(source: NnunetSource, **words: Any) -> Session:
    return Session.of(AugmentRequest(**{"target": "nnunet", "ratio": "1:1", **words}), source)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, ("-device", "tpu"), "tpu"),
        ({"trainer": "nnUNetTrainerDA6"}, (), "Did you mean 'nnUNetTrainerDA"),
        ({"trainer": "../x"}, (), "trainer ../x: nnU-Net has none of that name"),
    ],
)
def test_what_nnunet_would_not_understand_starts_nothing(
    source, frozen_bank, settings, options, message
):
    bank = frozen_bank()
    with pytest.raises(UsageFault) as caught:
        session(source, bank=bank, set=settings, options=options).start()
    assert message in str(caught.value)
    assert not (source.root.results / f"{bank.name}_1-1_constant").exists()


def test_a_cascades_first_stage_is_validated_by_nnunet_alone(source):
    source.config = {**source.config, "next_stage": ["3d_cascade_fullres"]}
    with raises_fault("nnunet.quick-validation-of-cascade"):
        session(source, ratio="1:0", set={"quick_validation": "yes"}).check()


def test_missing_preprocessing_is_named(toy_copy):
    (toy_copy.preprocessed / "dataset_fingerprint.json").unlink()
    with raises_fault("nnunet.preprocessed-file-missing"):
        session(NnunetSource(toy_copy.request()), ratio="1:0").start()


def test_samples_smaller_than_a_patch_are_refused():
    for space, patch, fits in (
        (Space("crop", (32, 32, 32)), (24, 24, 32), True),
        (Space("crop", (32, 32, 24)), (24, 24, 32), False),
        (Space("slice", (32, 32)), (1, 32, 24), True),
        (Space("native"), (24, 24, 24), True),
        (Space("resample", (64, 64, 64)), (24, 24, 24), False),
    ):
        source = SimpleNamespace(patch=patch)
        intake: Any = SimpleNamespace(source=source, converts=lambda run: False)
        run: Any = SimpleNamespace(folder="run", space=space)
        with nullcontext() if fits else raises_fault("nnunet.samples-unfit-for-patch"):
            NnunetIntake.check_run(intake, run, cast(Any, None))


def test_results_go_into_a_folder_of_generator_ratio_and_schedule(source, frozen_bank):
    bank = frozen_bank()
    for trainer in ("nnUNetTrainerDA5", "nnUNetTrainerDA5GANSynth"):
        folder = session(source, bank=bank, set={"trainer": trainer}).host.output
        assert folder.parent.name.startswith("nnUNetTrainerDA5GANSynth__")
    for words, name in (
        ({}, f"{bank.name}_1-1_constant"),
        ({"ratio": "1:3", "schedule": "anneal:0%-50%"}, f"{bank.name}_1-3_anneal-0-50"),
        ({"ratio": "1:0"}, "real_1-0_constant"),
    ):
        folder = session(source, bank=bank, **words).host.output
        below = folder.relative_to(source.root.results)
        assert below.parts[:2] == (name, source.dataset)


def test_nnunets_own_dice_is_beside_gansynths_measures(tmp_path):
    (tmp_path / "validation").mkdir(parents=True)
    per_label = {"1": {"Dice": 0.8}, "2": {"Dice": float("nan")}}
    summary = {"foreground_mean": {"Dice": 0.8}, "mean": per_label}
    (tmp_path / "validation" / "summary.json").write_text(json.dumps(summary))
    own = {"dice": 0.8, "dice_per_label": {"1": 0.8, "2": None}}
    assert own_metrics(tmp_path) == {"nnunet_validation": own}


def test_the_room_of_a_bank_is_known_before_and_too_little_is_refused(source, fitted):
    planned = session(source, generator=fitted, bank_size=10).bank_plan
    one = sample_bytes(source, source.space.size, 2)
    assert planned is not None
    assert planned.bytes == (one + 8192) * (10 + 2)
    with raises_fault("bank-options.size-below-two-samples"):
        session(source, generator=fitted, bank_size="1000B").check()


def test_a_training_goes_on_from_its_newest_checkpoint_and_a_damaged_one_is_named(tmp_path):
    assert newest_checkpoint(tmp_path) == (0, "")
    for name, epoch, newest in (
        ("latest", 5, (5, "checkpoint_latest.pth")),
        ("best", 3, (5, "checkpoint_latest.pth")),
        ("best", 7, (7, "checkpoint_best.pth")),
        ("final", 7, (7, "checkpoint_final.pth")),
    ):
        torch.save({"current_epoch": epoch}, tmp_path / f"checkpoint_{name}.pth")
        assert newest_checkpoint(tmp_path) == newest
    (tmp_path / "checkpoint_latest.pth").write_bytes(b"PK")
    with raises_fault("nnunet.checkpoint-unreadable"):
        newest_checkpoint(tmp_path)


@pytest.mark.fault(3)
def test_a_flipped_bit_of_nnunets_newest_checkpoint_is_found_and_the_older_one_used_without_it(
    tmp_path,
):
    newest, rng = tmp_path / "checkpoint_latest.pth", np.random.default_rng(0)
    torch.save({"current_epoch": 3}, tmp_path / "checkpoint_best.pth")
    torch.save({"current_epoch": 5, "network_weights": torch.rand(10_000)}, newest)
    sound = newest.read_bytes()
    for place in rng.integers(2000, 40_000, 50):  # among the weights
        spoilt = bytearray(sound)
        spoilt[place] ^= 1 << int(rng.integers(8))
        newest.write_bytes(spoilt)
        with raises_fault("files.archive-member-checksum-differs"):
            newest_checkpoint(tmp_path)
    newest.unlink()
    assert newest_checkpoint(tmp_path) == (3, "checkpoint_best.pth")


def test_two_variables_are_the_shortest_case_and_a_wrong_one_is_named(tmp_path):
    config = from_environment({"GANSYNTH_GENERATOR": str(tmp_path), "GANSYNTH_RATIO": "1:2"})
    assert config is not None
    assert config.request == AugmentRequest(target="nnunet", generator=tmp_path, ratio="1:2")
    assert from_environment({}) is None
    for variables, expected, wrong in (
        ({"GENERATOR": "runs/g0"}, "nnunet.variable-not-set", "GANSYNTH_RATIO "),
        ({"RATIO": "1:1"}, "nnunet.variable-not-set", "GANSYNTH_GENERATOR "),
        ({"RATIO": "1", "GENERATOR": "g"}, "ratio.not-two-numbers", "--ratio '1'"),
        ({"CONFIG": "/no/such.json"}, "nnunet.settings-file-refused", "GANSYNTH_CONFIG=/no/such."),
    ):
        with raises_fault(expected) as caught:
            from_environment({f"GANSYNTH_{name}": value for name, value in variables.items()})
        assert str(caught.value).startswith(wrong)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "expected the file that gansynth augment"),
        ({"later": 1}, "later: unknown"),
        ({"set": {"num_epoch": "3"}}, "num_epoch=3: nnunet has no such setting"),
    ],
)
def test_a_wrong_key_of_the_file_is_named(tmp_path, document, says):
    file = tmp_path / "mix.json"
    request = {"target": "nnunet", "generator": str(tmp_path), "ratio": "1:1", **document}
    file.write_text(json.dumps({"request": request} if document else {}))
    with raises_fault("nnunet.settings-file-refused", names=says):
        from_environment({"GANSYNTH_CONFIG": str(file)})


def test_what_the_adapter_writes_is_read_back_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    words: dict[str, Any] = {"target": "nnunet", "ratio": "1:1", "set": {"initial_lr": 0.1}}
    places = {"generator": "g0", "bank_dir": "scratch", "label_source": "nifti:scans"}
    request, case = AugmentRequest(**words, **places), CaseRecord("a", "s", "0")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TrainingHandover(request, {"fold": "0"}, (case,)).to_json()))
    samples = request.samples
    monkeypatch.chdir("/")
    read = from_environment({"GANSYNTH_CONFIG": str(file)})
    assert read is not None
    assert (read.held_out, read.source, read.request.samples) == ((case,), {"fold": "0"}, samples)
    moved = {name: tmp_path / places[name] for name in ("generator", "bank_dir")}
    scans = f"nifti:{tmp_path / 'scans'}"
    assert read.request == AugmentRequest(**words, **moved, label_source=scans)


def timed(words: Sequence[str], *_: Any, epochs: int = 1000, **__: Any) -> ProcessResult:
    """What the process that times two steps leaves, of a trainer of so many epochs."""
    found = {"load": 0.0, "step": 3.0, "memory": None, "at": 0.0, "batch": 2}
    write_json_atomic(words[-1], found | {"epochs": epochs, "batches": [250, 50]})
    return ProcessResult(0, "")


def test_a_dry_run_writes_the_file_and_the_command_for_nnunet(
    toy_nnunet, fitted, run_cli, run_json, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation_data, "DRAWN", evaluation_data.FEWEST)
    monkeypatch.setattr(processes, "run", timed)
    file = tmp_path / "mix.json"
    words = ("augment", "--target", "nnunet", *toy_nnunet.options, "--generator", fitted)
    words = (*words, "--device", "cpu", "--ratio", "1:2", "--refresh", "4x", "--num-epochs", "3")
    refused = run_cli(*words, "--settings-file", file)
    assert (refused.exit_code, file.exists()) == (2, False)
    assert "expected --dry-run beside it" in refused.stderr
    planned = run_json(*words, "--settings-file", file, "--dry-run")
    place = f"{toy_nnunet.dataset} 3d_fullres 0 -p {toy_nnunet.plans} -tr nnUNetTrainerGANSynth"
    assert f"GANSYNTH_CONFIG={file} nnUNetv2_train {place}" in planned["then"]
    config = from_environment({"GANSYNTH_CONFIG": planned["settings_file"]})
    assert config is not None
    assert config.request.generator == fitted
    assert (config.request.pacing.reuse, config.request.set) == (4, {"num_epochs": "3"})
    assert config.held_out == ()  # read again when it trains
    shares = shares_of_cores("nnU-Net", workers(), planned["producers"])
    assert (planned["loading_processes"], planned["processes"]) == (workers(), shares)
    assert planned["seconds_an_epoch"] == 250 * 3 + 50  # a validation takes a third of a step
    assert planned["training_hours"] == pytest.approx(3 * 800 / 3600, abs=0.05)


def test_a_dry_run_of_days_says_what_shortens_it(toy_nnunet, fitted, run_json, monkeypatch):
    monkeypatch.setattr(evaluation_data, "DRAWN", evaluation_data.FEWEST)
    monkeypatch.setattr(processes, "run", timed)
    words = ("augment", "--target", "nnunet", *toy_nnunet.options, "--generator", fitted)
    words = (*words, "--device", "cpu", "--ratio", "1:1", "--dry-run")
    long = run_json(*words)
    assert (long["training_hours"] > 24, long["shorter"]) == (True, "--num-epochs 100")
    assert "shorter" not in run_json(*words, *long["shorter"].split())
    monkeypatch.setattr(processes, "run", partial(timed, epochs=1))
    short = run_json(*words, "--trainer", "nnUNetTrainer_1epoch")
    assert short["training_hours"] == pytest.approx(long["training_hours"] / 1000, rel=0.2)
