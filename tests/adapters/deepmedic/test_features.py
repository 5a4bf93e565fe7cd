"""Features of networks that the torch engine has trained for an epoch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.errors import DataFault, UsageFault
from gansynth.host_features import host_features
from gansynth.sources.base import SourceRequest
from gansynth.testing import check_adapter
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.engine.predict import predictor_of
from gansynth_deepmedic.engine.reading import read_volume
from gansynth_deepmedic.engine.train import Task
from gansynth_deepmedic.insertion import Loaded
from gansynth_deepmedic.order import ORDER, Order
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from gansynth_deepmedic.subepochs import read_case
from tests.adapters.deepmedic.engine_orders import order_of, train, written

pytestmark = pytest.mark.usefixtures("one_thread")
ZSCORE = {"apply_to_all_channels": True}


@pytest.fixture
def trained(make, tmp_path) -> Callable[..., tuple[Path, DeepMedicSource]]:
    """Trains on phantoms: ``trained(numberOfEpochs=1)``; its folder, and its cases' source."""

    def run(**values: Any) -> tuple[Path, DeepMedicSource]:
        toy = make(**{"numberOfEpochs": 1, "numberOfSubepochs": 1, **values})
        source = open_deepmedic(SourceRequest("deepmedic", str(toy.train)))
        cases = tuple(source.host_case(case) for case in source.train_ids)
        order = order_of(toy, tmp_path / "host", cases=cases)
        train(order)
        written(order)
        return tmp_path / "host", source

    return run


def logits_of(folder: Path, case: Loaded) -> Any:
    """Logits (classes, X, Y, Z) of a volume as its files have it, by the network's own segments."""
    task = Task.of(Order.read(folder / ORDER))
    predictor, _ = predictor_of(folder, task, torch.device("cpu"), "fp32")
    ready, inner = predictor.ready(case)
    found = np.zeros((task.model.classes, *ready.labels.shape))
    for start, logits in predictor.segments(ready):
        found[(slice(None), *predictor.geometry.predicted(start))] = logits.numpy()
    return found[(slice(None), *inner)]


def head_of(folder: Path) -> tuple[Any, Any]:
    task = Task.of(Order.read(folder / ORDER))
    network: Any = predictor_of(folder, task, torch.device("cpu"), "fp32")[0].network
    weight = network.head.blocks[-1][-1].weight.detach().numpy()
    assert weight.shape[2:] == (1, 1, 1)
    return weight[..., 0, 0, 0], network.bias.bias.detach().numpy()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("values", [{}, {"norm_zscore_prms": ZSCORE}], ids=["stored", "normalised"])
def test_times_the_last_weights_they_are_the_logits_of_the_files(trained, masked, values):
    """Files are stored flipped; where DeepMedic normalises, the source does so case by case."""
    folder, source = trained(**values)
    case = source.load(source.train_ids[0])
    chosen = case.labels > 0 if masked else np.ones_like(case.labels, bool)
    found, title = host_features(
        *(folder, [case.image], replace(source.schema, has_outside=True)),
        labels=[case.labels] if masked else None,
        device="cpu",
    )
    host = source.host_case(case.id)
    assert [step for _, step in host.stored] != [1, 1, 1]
    logits = logits_of(folder, replace(read_case(host, read_volume), roi=None))
    weight, bias = head_of(folder)
    wanted = host.view(logits)[:, chosen].mean(1)
    np.testing.assert_allclose(weight @ found[0] + bias, wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.02
    assert title == "DeepMedic (torch) host (1 epochs)"


def test_crops_of_any_size_are_looked_at_each_on_its_own(trained):
    folder, source = trained()
    cases = [source.load(case).image for case in source.train_ids[:2]]
    images = [cases[0][:, 3:15, 2:12, 4:20], cases[1][:, 1:30]]
    rows, _ = host_features(folder, images, source.schema, device="cpu")
    alone, _ = host_features(folder, images[1:], source.schema, device="cpu")
    assert rows.shape == (2, 8)
    np.testing.assert_array_equal(rows[1], alone[0])
    assert np.abs(rows[0] - rows[1]).max() > 1e-4


def test_the_adapter_keeps_the_contract(trained, tmp_path):
    folder, source = trained()
    adapter = DeepMedicAdapter(source)
    report = check_adapter(adapter, workspace=tmp_path / "work", trained=folder)
    assert report.passed, report.failed
    looks = [check.verdict for check in report.checks if check.name.startswith("features: ")]
    assert looks == ["passed"] * 7


def test_other_channels_are_refused(trained):
    folder, source = trained()
    case = source.load(source.train_ids[0])
    narrow = replace(source.schema, channels=("flair",), outside_fill=None)
    with pytest.raises(DataFault, match=r"trained on 2 channel\(s\), the images have 1 \(flair\)"):
        host_features(folder, [case.image[:1]], narrow, device="cpu")


def test_slices_are_refused(trained):
    folder, source = trained()
    case = source.load(source.train_ids[0])
    with pytest.raises(UsageFault, match="sees volumes, the images are slices"):
        host_features(folder, [case.image[:, 4:5]], source.schema, device="cpu")


def test_units_of_each_case_that_nobody_undoes_are_refused(trained):
    folder, source = trained()
    order = Order.read(folder / ORDER)
    cases = [
        replace(case, units=((float(2 + number), 0.0), case.units[1]))
        for number, case in enumerate(order.cases)
    ]
    written(replace(order, cases=tuple(cases)))
    case = source.load(source.train_ids[0])
    with pytest.raises(UsageFault, match="channel 0 of its cases was normalised case by case"):
        host_features(folder, [case.image], source.schema, device="cpu")


def test_what_deepmedic_itself_has_trained_is_refused(trained):
    folder, source = trained()
    written(replace(Order.read(folder / ORDER), engine="deepmedic"))
    case = source.load(source.train_ids[0])
    with pytest.raises(UsageFault, match="DeepMedic itself has trained there"):
        host_features(folder, [case.image], source.schema, device="cpu")


def test_a_training_without_a_checkpoint_is_refused(trained):
    folder, source = trained()
    (folder / "checkpoints").rename(folder / "elsewhere")
    case = source.load(source.train_ids[0])
    with pytest.raises(UsageFault, match="no checkpoint, expected a trained network"):
        host_features(folder, [case.image], source.schema, device="cpu")


def test_it_knows_its_folders_by_what_is_in_them(trained, tmp_path):
    folder, _ = trained()
    assert DeepMedicAdapter.recognises(folder)
    assert not DeepMedicAdapter.recognises(tmp_path)
