import json
from typing import Any

import pytest

from gansynth.core.lineage import CaseRecord
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.launch import ApartTraining
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.launch import from_environment


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"GENERATOR": "runs/g0"}, "GANSYNTH_RATIO is not set"),
        ({"RATIO": "1:1"}, "GANSYNTH_GENERATOR is not set; set GANSYNTH_GENERATOR=runs/g0"),
        ({"RATIO": "1", "GENERATOR": "g"}, "expected REAL:SYNTHETIC"),
        ({"CONFIG": "/no/such.json"}, "GANSYNTH_CONFIG=/no/such.json: FileNotFoundError"),
    ],
)
def test_a_wrong_variable_is_named(variables, message):
    with pytest.raises(UsageFault) as caught:
        from_environment({f"GANSYNTH_{k}": v for k, v in variables.items()})
    assert message in str(caught.value)


def test_two_variables_are_the_shortest_case(tmp_path):
    environ = {"GANSYNTH_GENERATOR": str(tmp_path), "GANSYNTH_RATIO": "1:2"}
    config = from_environment(environ)
    assert config is not None
    assert config.request == AugmentRequest(target="nnunet", generator=tmp_path, ratio="1:2")
    assert from_environment({}) is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "expected the file that gansynth augment"),
        ({"later": 1}, "later: unknown"),
        ({"schedule": "finetune:34%@50%"}, "expected --ratio 0:1"),
        ({"set": {"num_epoch": "3"}}, "num_epoch=3: nnunet has no such setting"),
    ],
)
def test_a_wrong_key_of_the_file_is_named(tmp_path, document, message):
    file = tmp_path / "mix.json"
    request = {"target": "nnunet", "generator": str(tmp_path), "ratio": "1:1", **document}
    file.write_text(json.dumps({"request": request} if document else {}))
    with pytest.raises(UsageFault) as caught:
        from_environment({"GANSYNTH_CONFIG": str(file)})
    assert str(caught.value).startswith(f"GANSYNTH_CONFIG={file}: ")
    assert message in str(caught.value)


EVERYTHING: dict[str, Any] = {
    **{
        "target": "nnunet",
        "ratio": "0:1",
        "schedule": "finetune:50%@90%",
        "seed": 3,
        "strict": True,
    },
    **{"edit": ("flip",), "boxes": "training", "filter": ("none",), "lesions": "pairs=ordered"},
    **{"condition_source": "nifti:scans", "condition_source_read": {"spacing": "1,1,2"}},
    **{"generator": "g0", "bank_dir": "scratch", "bank_size": "3x", "reuse": 4, "patience": 9},
    **{"device": "cpu", "allow_empty_bank": True, "host_augmentation": False},
    **{"augment_synthetic": False, "real_in_generator_space": True, "options": ("--npz",)},
    **{"set": {"num_epochs": 3, "initial_lr": 0.1}, "sampling_weights": "weights.json"},
}


def test_what_the_adapter_writes_is_read_back_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    request, case = AugmentRequest(**EVERYTHING), CaseRecord("a", "s", "0")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(ApartTraining(request, {"fold": "0"}, (case,)).to_json()))
    samples, folders = request.samples, ("generator", "bank_dir", "sampling_weights")
    monkeypatch.chdir("/")
    read = from_environment({"GANSYNTH_CONFIG": str(file)})
    assert read is not None
    assert (read.held_out, read.source, read.request.samples) == ((case,), {"fold": "0"}, samples)
    moved = {name: tmp_path / str(EVERYTHING[name]) for name in folders}
    assert read.request == AugmentRequest(
        **{**EVERYTHING, **moved, "condition_source": f"nifti:{tmp_path / 'scans'}"}
    )


def test_a_dry_run_writes_the_file_and_the_command_for_nnunet(
    toy_nnunet, fitted, run_cli, tmp_path
):
    file = tmp_path / "mix.json"
    words = ("augment", "--target", "nnunet", *toy_nnunet.options, "--generator", fitted)
    words = (*words, "--device", "cpu", "--ratio", "1:2", "--reuse", "4", "--num-epochs", "3")
    refused = run_cli(*words, "--settings-file", file)
    assert (refused.exit_code, file.exists()) == (2, False)
    assert "expected --dry-run beside it" in refused.stderr
    result = run_cli(*words, "--settings-file", file, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    planned = json.loads(result.stdout)
    place = f"{toy_nnunet.dataset} 3d_fullres 0 -p {toy_nnunet.plans} -tr nnUNetTrainerGANSynth"
    assert f"GANSYNTH_CONFIG={file} nnUNetv2_train {place}" in planned["then"]
    config = from_environment({"GANSYNTH_CONFIG": planned["settings_file"]})
    assert config is not None
    assert config.request.generator == fitted
    assert (config.request.pacing.reuse, config.request.set) == (4, {"num_epochs": "3"})
    assert config.held_out == ()  # read again when it trains
