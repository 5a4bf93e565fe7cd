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
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.config import TrainerMix

DRAWN = {"RATIO": "1:1", "GENERATOR": "g"}


def told(**said: object) -> TrainerMix | None:
    """What these variables say, their names without GANSYNTH_."""
    return TrainerMix.from_environment({f"GANSYNTH_{k}": str(v) for k, v in said.items()})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"GENERATOR": "runs/g0"}, "GANSYNTH_RATIO is not set"),
        ({"RATIO": "1:1"}, "GANSYNTH_GENERATOR=runs/g0"),
        ({"RATIO": "1", "GENERATOR": "g"}, "expected REAL:SYNTHETIC"),
        ({"SET": "num_epoch=3"}, "num_epoch=3: nnU-Net's"),
        ({"SET": "num_epochs=two"}, "a whole number"),
        ({"SET": "num_epochs=0"}, "greater than or equal to 1"),
        ({"SET": "initial_lr=nan"}, "initial_lr=nan"),
        (
            {"SET": "elastic=0.5", "USUAL_AUGMENTATION": "0"},
            "--set elastic=0.5: has no effect with --no-host-augmentation",
        ),
        ({"SET": "num_epochs"}, "has no '='"),
        ({"FROZEN": "maybe"}, "GANSYNTH_FROZEN=maybe"),
        ({"BANK_SIZE": "x"}, "--bank-size 'x'"),
        ({"PATIENCE": "soon"}, "GANSYNTH_PATIENCE=soon"),
        ({"SCHEDULE": "later"}, "--schedule 'later'"),
        ({"OVERHEAD": "2"}, "--overhead '2'"),
        ({"CONFIG": "/no/such.json"}, "/no/such.json: cannot be read"),
        ({**DRAWN, "FILTER": "sieve"}, "sieve"),
        ({**DRAWN, "SCHEDULE": "finetune:34%@50%"}, "expected --ratio 0:1"),
    ],
)
def test_a_wrong_variable_is_named(said, message):
    with pytest.raises(UsageFault) as caught:
        told(**(said if {"RATIO", "GENERATOR", "CONFIG"} & set(said) else {"RATIO": "1:0", **said}))
    assert message in str(caught.value)


def test_what_the_adapter_writes_is_read_back(tmp_path):
    config = TrainerMix(
        everything(tmp_path / "g0"),
        settings={"num_epochs": 3, "initial_lr": 0.1},
        patience=7.0,
        held_out=(CaseRecord("a", "s", "0"),),
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_json()))
    assert TrainerMix.from_environment({"GANSYNTH_CONFIG": str(file)}) == config


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
    )
    plain = MixConfig(RunFolder(run), Ratio.parse("1:1"))
    same = [
        f.name for f in fields(MixConfig) if getattr(plain, f.name) == getattr(mix_config, f.name)
    ]
    # nnU-Net's real cases are what its own preprocessing makes of them: that is refused. The last
    # one is of data sets on disk.
    assert same == ["run", "real_in_generator_space", "nearest"], "name every option"
    return mix_config


def test_variables_say_all_that_the_options_of_augment_do(tmp_path):
    said = {
        "GENERATOR": tmp_path,
        "BANK": tmp_path / "bank",
        "RATIO": "1:2",
        "SCHEDULE": "anneal:50%-90%",
        "FROZEN": 1,
        "BANK_SIZE": "3x",
        "REUSE": 4,
        "SCRATCH": tmp_path / "scratch",
        "EDITS": "elastic,flip",
        "BOXES": "training",
        "CONDITIONS": f"nifti:{tmp_path}",
        "CONDITIONS_READ": "spacing=1,1,2,fold=0,channels=T1",
        "LESIONS": "pairs=ordered",
        "FILTER": "none",
        "SEED": 3,
        "DEVICE": "cuda:1",
        "RESTARTS": 2,
        "STRICT": "yes",
        "KEEP_GOING": 1,
        "USUAL_AUGMENTATION": 0,
        "AUGMENT_SYNTHETIC": "no",
        "PATIENCE": "0.5",
    }
    config = told(**said)
    assert config is not None
    assert config.mix_config == everything(tmp_path)
    assert config.patience == 0.5


@pytest.mark.parametrize(
    ("said", "edits"),
    [
        ("flip,shift:max_mm=3,classes=1", ("flip", "shift:max_mm=3,classes=1")),
        ("elastic flip", ("elastic", "flip")),
    ],
)
def test_an_edits_options_go_with_it(said, edits):
    config = told(**DRAWN, EDITS=said)
    assert config is not None
    assert config.mix_config.samples.edits == edits
