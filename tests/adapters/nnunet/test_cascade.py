import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import MixConfig
from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.cascade import PREVIOUS, PreviousStage, border_scores, confuse
from gansynth_nnunet.mixed import MixedNnunetDataset
from gansynth_nnunet.plans import NnunetPlans
from gansynth_nnunet.source import open_nnunet
from tests.adapters.nnunet.conftest import crops_bank
from tests.conftest import Toy, prepare

pytestmark = pytest.mark.filterwarnings("ignore")


def add_cascade(plans: Path) -> None:
    """The two stages that nnU-Net's planner makes for larger cases."""
    document = json.loads(plans.read_text())
    stages = document["configurations"]
    full = stages["3d_fullres"]
    low = {"data_identifier": "nnUNetPlans_3d_lowres", "spacing": [1.5] * 3}
    stages["3d_lowres"] = {**full, **low, "next_stage": "3d_cascade_fullres"}
    stages["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    write_json_atomic(plans, document)


@pytest.fixture
def toy(toy_copy: Toy) -> Toy:
    """The toy data set with plans for a cascade; its first stage is not preprocessed."""
    for name in ("nnUNetPlans", toy_copy.plans):
        add_cascade(toy_copy.preprocessed / f"{name}.json")
    return toy_copy


@pytest.fixture
def adapter(toy):
    return NnunetAdapter(open_nnunet(toy.request(configuration="3d_cascade_fullres")))


@pytest.fixture
def bank(tmp_path) -> Callable[[Any], Path]:
    """Makes a frozen bank of training crops with what an adapter adds to them."""
    return lambda adapter: crops_bank(adapter, tmp_path / "cascade_bank", 4)


def resample(labels: Any, *given: Any, is_seg: bool = True) -> Any:
    from nnunetv2.preprocessing.resampling import default_resampling

    more = {"is_seg": is_seg, "order": 1}
    return default_resampling.resample_data_or_seg_to_shape(labels, *given, **more)


class Stage:
    """Stands in for nnU-Net's own object of the first stage, with its way of resampling."""

    resampling_fn_seg = staticmethod(resample)
    resampling_fn_probabilities = staticmethod(functools.partial(resample, is_seg=False))


def phantom(seed: int = 0, edge: int = 48) -> Any:
    """A large organ with a lesion in it, a small second piece of organ, and no body at one side."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1) / edge
    balls = [((0.45, 0.45, 0.45), 0.28, 1), ((0.45, 0.5, 0.45), 0.14, 2), ((0.8,) * 3, 0.1, 1)]
    labels = np.zeros((edge,) * 3, np.int16)
    for centre, radius, label in balls:
        off = grid - np.array(centre) - rng.normal(0, 0.02, 3)
        labels[(off**2).sum(-1) < radius**2] = label
    labels[:3] = -1
    return labels


STAND_IN = PreviousStage((1, 2), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), Stage)


def test_it_is_neither_the_truth_nor_far_from_it():
    truth = phantom()
    found = STAND_IN.predict(truth)
    assert found.shape == truth.shape
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 1, 2}  # in nnU-Net's own there is no -1 either
    for label in (1, 2):
        ours, theirs = found == label, truth == label
        assert 0.5 < 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) < 0.99


def test_errors_are_of_every_kind():
    truths = [phantom(seed) for seed in range(24)]
    found = [STAND_IN.predict(truth) for truth in truths]
    sizes = [(f == 2).sum() / (t == 2).sum() for f, t in zip(found, truths, strict=True)]
    assert min(sizes) < 0.9
    assert max(sizes) > 1.1
    second = (slice(33, 44),) * 3  # the organ's second piece
    kept = [(f[second] == 1).any() for f in found]
    assert 0 < sum(kept) < len(kept)
    assert any((f[second] == 2).any() for f in found)


def test_a_border_is_moved_as_a_whole_and_along_itself():
    grid = np.stack(np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij"))
    mask = (grid**2).sum(0) < 100
    moved = [border_scores(mask, np.random.default_rng(seed)) > 0 for seed in range(12)]
    sizes = [float(m.sum() / mask.sum()) for m in moved]
    assert min(sizes) < 0.85
    assert max(sizes) > 1.15
    # a border that moved as a whole only would lose or gain, but not both
    assert any((m & ~mask).any() and (mask & ~m).any() for m in moved)


def test_the_same_labels_give_the_same_errors_and_others_give_others():
    first, again, other = (STAND_IN.predict(phantom(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_nobody_has_looked_at_and_no_label_are_not_predicted():
    truth = phantom()
    truth[:, :10] = 3  # the ignore label
    assert 3 not in STAND_IN.predict(truth)
    assert not STAND_IN.predict(np.full((8, 9, 10), -1, np.int16)).any()


def test_what_makes_up_most_of_a_label_is_neither_lost_nor_mistaken():
    rng = np.random.default_rng(0)
    for _ in range(30):
        labels = np.zeros((12, 12, 12), np.int16)
        labels[2:8, 2:8, 2:8] = 1
        before = labels.copy()
        confuse(labels, 1, [1, 2], rng)
        assert np.array_equal(labels, before)


def test_the_stages_are_read_from_the_plans(adapter):
    host = adapter.host
    stage = PreviousStage.of(host.plans.doc, "3d_cascade_fullres", host.dataset_json)
    assert stage is not None
    assert (stage.labels, stage.spacing, stage.coarse) == ((1, 2), (1.0,) * 3, (1.5,) * 3)
    assert PreviousStage.of(host.plans.doc, "3d_fullres", host.dataset_json) is None


def test_a_generator_of_full_resolution_serves_its_cascade(toy):
    plans = NnunetPlans.read(toy.preprocessed, toy.plans)
    assert plans.first_of("3d_cascade_fullres") == "3d_fullres"
    assert plans.first_of("3d_lowres") == "3d_lowres"
    hosts = [
        open_nnunet(toy.request(configuration=name)).host
        for name in ("3d_fullres", "3d_cascade_fullres")
    ]
    assert hosts[0] == hosts[1]


class Real:
    """nnU-Net's data set of a second stage, as far as it is asked."""

    identifiers = ("case",)
    folder_with_segs_from_previous_stage = "predicted_next_stage"


def mixed(folder: Path) -> MixedNnunetDataset:
    return MixedNnunetDataset(Real(), MixerConfig(folder, Ratio(0, 1)), 2, 2)


def test_samples_bring_the_previous_stage_from_the_bank(adapter, bank):
    folder = bank(adapter)
    image, labels, previous, _ = mixed(folder).load_case("case")
    assert previous.shape == labels.shape[1:] == image.shape[1:]
    kept = [BankReader(folder).read(i).extras[PREVIOUS] for i in BankReader(folder).ids()]
    assert any(np.array_equal(previous, extra) for extra in kept)


def test_a_bank_without_the_previous_stage_is_refused(frozen_bank):
    with pytest.raises(DataFault, match="samples lack the labels of the cascade's previous stage"):
        mixed(frozen_bank())


def test_it_is_refused_with_the_reason_and_the_way_out_unless_asked_for(toy, adapter, bank, refuse):
    folder = bank(adapter)
    data = ("--data", "nnunet:501", "-c", "3d_cascade_fullres", "--plans", toy.plans)
    refuse(
        *("augment", "--target", "nnunet", *data, "--root", toy.root),
        *("--bank", folder, "--ratio", "1:1", "--dry-run"),
        code=2,
        says=("too good a prior", "--set cascade=degraded", "GANSYNTH_CASCADE=1"),
    )
    mix_config = MixConfig(None, Ratio(1, 1), bank=folder)
    adapter.check(TrainingRequest(mix_config, {"cascade": "degraded"}, ()))


@pytest.mark.parametrize(
    ("said", "fault", "says"),
    [
        ({}, UsageFault, "too good a prior"),
        ({"CASCADE": 1}, DataFault, r"6 of 6 cases have no prediction of 3d_lowres"),
    ],
)
def test_the_stock_command_refuses_too_and_misses_predictions(
    toy, ready, adapter, bank, monkeypatch, said, fault, says
):
    torchvision_compat.apply()
    monkeypatch.setenv("nnUNet_preprocessed", str(toy.preprocessed.parent))
    trainer = ready("3d_cascade_fullres", BANK=bank(adapter), **said)
    with pytest.raises(fault, match=says):
        trainer.get_tr_and_val_datasets()


QUICK = {"num_epochs": "1", "num_iterations_per_epoch": "2", "num_val_iterations_per_epoch": "1"}


@pytest.mark.slow
def test_a_cascade_is_trained_with_synthetic_samples(toy, bank, cheap_nnunet):
    prepare(toy.request(plans=None), ("3d_lowres",), processes=1)
    first = NnunetAdapter(open_nnunet(toy.request(configuration="3d_lowres", fold="all")))
    first.start(TrainingRequest(MixConfig(None, Ratio.parse("1:0")), QUICK, ("-device", "cpu")))
    predicted = first.output_folder.parent / "predicted_next_stage" / "3d_cascade_fullres"
    assert len(list(predicted.glob("*.b2nd"))) == 6

    second = NnunetAdapter(open_nnunet(toy.request(configuration="3d_cascade_fullres")))
    mix_config = MixConfig(None, Ratio.parse("1:1"), bank=bank(second), augment_synthetic=False)
    settings = {**QUICK, "cascade": "degraded"}
    training_result = second.start(TrainingRequest(mix_config, settings, ("-device", "cpu")))
    assert (training_result.realised, training_result.fell_back) == (0.5, 0)
    assert 0 <= training_result.metrics["dice"]["foreground"] <= 1
