import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import (
    DataFault,
    IntegrityFault,
    UsageFault,
)
from gansynth_nnunet.adapter import NnunetAdapter, newest_checkpoint, own_metrics
from gansynth_nnunet.converter import sample_bytes
from gansynth_nnunet.source import NnunetSource

# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def adapter(toy_nnunet):
    return NnunetAdapter(NnunetSource(toy_nnunet.request()))


def asked(**words: Any) -> AugmentRequest:
    return AugmentRequest(**{"target": "nnunet", "ratio": "1:1", **words})


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"num_epoch": "3"}, (), "--set num_epoch=3: nnunet has no such setting"),
        ({}, ("-device", "tpu"), "tpu"),
        ({"trainer": "nnUNetTrainerDA6"}, (), "Did you mean 'nnUNetTrainerDA"),
        ({"trainer": "../x"}, (), "trainer ../x: nnU-Net has none of that name"),
    ],
)
def test_what_nnunet_would_not_understand_starts_nothing(
    adapter, frozen_bank, settings, options, message
):
    bank = frozen_bank()
    with pytest.raises(UsageFault) as caught:
        adapter.start(asked(bank=bank, set=settings, options=options))
    assert message in str(caught.value)
    assert not (adapter.source.root.results / f"{bank.name}_1-1_constant").exists()


def test_missing_preprocessing_is_named(toy_copy):
    (toy_copy.preprocessed / "dataset_fingerprint.json").unlink()
    with pytest.raises(DataFault, match=r"dataset_fingerprint\.json: missing.*gansynth prepare"):
        NnunetAdapter(NnunetSource(toy_copy.request())).validate()


@pytest.mark.parametrize(
    ("space", "patch", "fits"),
    [
        (Space("crop", (32, 32, 32)), (24, 24, 32), True),
        (Space("crop", (32, 32, 24)), (24, 24, 32), False),
        (Space("slice", (32, 32)), (32, 24), True),
        (Space("slice", (32, 32)), (24, 24, 24), False),
        (Space("native"), (24, 24, 24), True),
        (Space("resample", (64, 64, 64)), (24, 24, 24), False),
    ],
)
def test_samples_smaller_than_a_patch_are_refused(space, patch, fits):
    with nullcontext() if fits else pytest.raises(UsageFault):
        host = SimpleNamespace(
            source=SimpleNamespace(patch=(1, *patch)[-3:]), converts=lambda run: False
        )
        run = SimpleNamespace(folder="run", space=space)
        NnunetAdapter.check_run(cast(Any, host), cast(Any, run), cast(Any, None))


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDA5", "nnUNetTrainerDA5GANSynth"])
def test_results_go_where_the_user_says_and_nnunet_puts_those_of_the_variant(
    adapter, frozen_bank, tmp_path, trainer
):
    settings = {"trainer": trainer, "results": str(tmp_path / "arm")}
    folder = adapter.configured(asked(bank=frozen_bank(), set=settings)).output
    assert folder.is_relative_to(tmp_path / "arm" / adapter.source.dataset)
    assert folder.parent.name.startswith("nnUNetTrainerDA5GANSynth__")


def test_generator_ratio_and_schedule_name_the_folder_in_nnunets_results(toy_copy, frozen_bank):
    adapter = NnunetAdapter(NnunetSource(toy_copy.request()))
    bank = frozen_bank()
    for words, name in (
        ({}, f"{bank.name}_1-1_constant"),
        ({"ratio": "1:3", "schedule": "anneal:0%-50%"}, f"{bank.name}_1-3_anneal-0-50"),
        ({"ratio": "1:0"}, "real_1-0_constant"),
    ):
        below = adapter.configured(asked(bank=bank, **words)).output.relative_to(
            adapter.source.root.results
        )
        assert below.parts[:2] == (name, adapter.source.dataset)


def test_nnunets_own_dice_is_beside_gansynths_measures(tmp_path):
    (tmp_path / "validation").mkdir(parents=True)
    per_label = {"1": {"Dice": 0.8}, "2": {"Dice": float("nan")}}
    summary = {"foreground_mean": {"Dice": 0.8}, "mean": per_label}
    (tmp_path / "validation" / "summary.json").write_text(json.dumps(summary))
    own = {"dice": 0.8, "dice_per_label": {"1": 0.8, "2": None}}
    assert own_metrics(tmp_path) == {"nnunet_validation": own}


def test_the_room_of_a_bank_is_known_before_and_too_little_is_refused(adapter, fitted):
    planned = adapter.bank_plan(asked(generator=fitted, bank_size=10))
    one = sample_bytes(adapter.source, adapter.source.space.size, 2)
    assert planned is not None
    assert planned.bytes == (one + 8192) * (10 + 2)
    with pytest.raises(UsageFault, match=r"--bank-size 1000B: holds 0 sample"):
        adapter.check(asked(generator=fitted, bank_size="1000B"))


@pytest.mark.parametrize(
    ("epochs", "newest"),
    [
        ({}, (0, "")),
        ({"latest": 5, "best": 3}, (5, "checkpoint_latest.pth")),
        ({"latest": 5, "best": 7}, (7, "checkpoint_best.pth")),
        ({"final": 9, "best": 9}, (9, "checkpoint_final.pth")),
    ],
)
def test_a_training_goes_on_from_its_newest_checkpoint(tmp_path, epochs, newest):
    for name, epoch in epochs.items():
        torch.save({"current_epoch": epoch}, tmp_path / f"checkpoint_{name}.pth")
    assert newest_checkpoint(tmp_path) == newest


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint_latest.pth").write_bytes(b"PK")
    with pytest.raises(IntegrityFault, match=r"checkpoint_latest.pth: .* remove it"):
        newest_checkpoint(tmp_path)
