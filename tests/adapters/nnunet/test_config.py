import json
from dataclasses import fields
from pathlib import Path

import pytest

from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.hosts.launch import ApartTraining
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.config import from_environment


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
    assert config.mix_config == MixConfig(RunFolder(tmp_path), Ratio(1, 2))
    assert from_environment({}) is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "expected the file that gansynth augment"),
        ({"mix_config": {"size": "x"}}, "--bank-size 'x'"),
        ({"mix_config": {"later": 1}}, "unexpected 'later'"),
        ({"mix_config": {"schedule": "finetune:34%@50%"}}, "expected --ratio 0:1"),
        ({"settings": {"num_epoch": "3"}}, "num_epoch=3: nnunet has no such setting"),
        ({"settings": {"num_epochs": "two"}}, "num_epochs=two"),
        ({"settings": {"num_epochs": "0"}}, "num_epochs=0"),
    ],
)
def test_a_wrong_key_of_the_file_is_named(tmp_path, document, message):
    file = tmp_path / "mix.json"
    mix = MixConfig(RunFolder(tmp_path), Ratio(1, 1))
    whole = ApartTraining("nnunet", mix, {}, {}, (), ()).to_json()
    whole["mix_config"] |= document.get("mix_config", {})
    whole["settings"] = document.get("settings", {})
    file.write_text(json.dumps(whole if document else {}))
    with pytest.raises(UsageFault) as caught:
        from_environment({"GANSYNTH_CONFIG": str(file)})
    assert str(caught.value).startswith(f"GANSYNTH_CONFIG={file}: ")
    assert message in str(caught.value)


def test_what_the_adapter_writes_is_read_back(tmp_path):
    mix_config, case = everything(tmp_path / "g0"), CaseRecord("a", "s", "0")
    settings = {"num_epochs": "3", "initial_lr": "0.1"}
    training = ApartTraining("nnunet", mix_config, {"fold": "0"}, settings, ("--npz",), (case,))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(training.to_json()))
    assert from_environment({"GANSYNTH_CONFIG": str(file)}) == training


def everything(run: Path) -> MixConfig:
    """No option as it is by default."""
    mix_config = MixConfig(
        samples=SampleRequest(
            edits=("elastic", "flip"),
            boxes="training",
            keep_flawed=True,
            conditions={
                "kind": "nifti",
                "where": str(run),
                "fold": "0",
                "read": {"spacing": "1,1,2", "channels": "T1"},
            },
            lesions="pairs=ordered",
            seed=3,
        ),
        run=RunFolder(run),
        ratio=Ratio.parse("1:2"),
        schedule=Schedule.parse("anneal:50%-90%"),
        frozen=True,
        size=BankSize.parse("3x"),
        pacing=RefreshPolicy(reuse=4),
        bank=run / "bank",
        scratch=run / "scratch",
        device="cuda:1",
        restarts=2,
        strict=True,
        keep_going=True,
        usual_augmentation=False,
        augment_synthetic=False,
        real_in_generator_space=True,
        nearest=True,
    )
    plain = MixConfig(RunFolder(run), Ratio.parse("1:1"))
    names = [f.name for f in fields(MixConfig)]
    same = [name for name in names if getattr(plain, name) == getattr(mix_config, name)]
    assert same == ["run"], "name every option"
    return mix_config


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
    assert config.mix_config.run == RunFolder(fitted)
    assert (config.mix_config.pacing.reuse, dict(config.settings)) == (4, {"num_epochs": "3"})
    assert config.held_out == ()  # read again when it trains
