"""Every configuration of nnU-Net, on labels that overlap and are not all known: 2d, full, low."""

import json

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.sample_request import SampleRequest
from gansynth.runtime.files import write_json_atomic
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import NnunetSource
from tests.adapters.nnunet.conftest import begin, sidecar
from tests.banks import Pairs, write_bank
from tests.conftest import SMALL, Toy, prepare, shortcuts, write_raw

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGURATIONS = ("3d_fullres", "2d", "3d_lowres")
IGNORE = 3


def make(toy: Toy) -> None:
    """The toy data set with a region, and an ignore label where nobody has looked."""
    write_raw(toy.raw)
    for path in sorted((toy.raw / "labelsTr").iterdir()):
        labels = np.asarray(nib.Nifti1Image.from_filename(path).dataobj).astype(np.uint8)
        labels[..., :4] = IGNORE
        nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    doc = json.loads((toy.raw / "dataset.json").read_text())
    doc["labels"] = {"background": 0, "whole": [1, 2], "core": 2, "ignore": IGNORE}
    doc["regions_class_order"] = [1, 2]
    write_json_atomic(toy.raw / "dataset.json", doc)
    request = toy.request(plans=None)
    with shortcuts():
        prepare(request, CONFIGURATIONS[:2], processes=1, **SMALL)
        # the configuration that nnU-Net's planner makes for larger cases
        plans = json.loads((toy.preprocessed / "nnUNetPlans.json").read_text())
        full = plans["configurations"]["3d_fullres"]
        low = {"data_identifier": "nnUNetPlans_3d_lowres", "spacing": [1.5, 1.5, 1.5]}
        plans["configurations"]["3d_lowres"] = {**full, **low}
        write_json_atomic(toy.preprocessed / "nnUNetPlans.json", plans)
        prepare(request, CONFIGURATIONS[2:], processes=1, **SMALL)


@pytest.fixture(scope="module")
def toy_nnunet(tmp_path_factory) -> Toy:
    """Of regions with an ignore label, for every fixture of this module's tests."""
    toy = Toy(tmp_path_factory.mktemp("regional"))
    make(toy)
    return toy


def test_regions_and_ignore_label_become_plain_labels(toy_nnunet):
    found = NnunetSource(toy_nnunet.request())
    named = {"background": 0, "label_1": 1, "core": 2, "ignore": IGNORE}
    assert dict(found.schema.labels) == named
    assert (found.schema.ignore, found.schema.label_values) == (IGNORE, (-1, 0, 1, 2))
    assert found.space.host["regions"] == {"whole": [1, 2], "core": [2]}
    host = NnunetAdapter(found, AugmentRequest(target="nnunet", ratio="1:0"))
    host.open()
    measured = {"foreground": (1, 2), "1": (1,), "2": (2,), "whole": (1, 2)}
    assert dict(host.regions) == measured


def test_it_trains_on_regions_with_an_ignore_label(ready):
    trainer = ready("3d_lowres")
    trainer.run_training()
    record = sidecar(trainer)
    assert record["complete"]
    drawn = record["sessions"][0]["drawn"]
    assert (drawn["real"], drawn["synthetic"], drawn["fell_back"]) == (2, 2, 0)
    assert np.isfinite(trainer.logger.get_value("train_losses", 0)).all()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_targets_of_samples_have_a_channel_a_region_and_one_for_what_is_unknown(
    ready, configuration
):
    train, _ = begin(ready(configuration, ratio="0:1")).get_dataloaders()
    batches = [next(train) for _ in range(6)]
    target = np.concatenate([b["target"][0].numpy() for b in batches])  # (B, 3, [D,] H, W)
    assert target.shape[1] == 3
    assert set(np.unique(target)) <= {0, 1}
    whole, core, unknown = target.swapaxes(0, 1).astype(bool)
    assert whole.any()
    assert core.any()
    assert not (core & ~whole & ~unknown).any()


def test_what_nobody_labelled_in_a_case_is_unknown_in_samples_of_it(
    ready, toy_nnunet, run_cli, tmp_path
):
    assert run_cli("fit", "copypaste", *toy_nnunet.options, "-o", tmp_path / "run").exit_code == 0
    opened, source = load_run(tmp_path / "run", "cpu"), NnunetSource(toy_nnunet.request())
    samples = Sampler(opened, source, SampleRequest(lesions="add")).draw(0, 4)
    pairs: Pairs = [(sample, {}) for sample in samples]
    write_bank(tmp_path / "bank", source.schema, opened.lineage, pairs)
    train, _ = begin(ready(ratio="0:1", bank=tmp_path / "bank")).get_dataloaders()
    target = np.concatenate([next(train)["target"][0].numpy() for _ in range(6)])
    whole, core, unknown = target.swapaxes(0, 1).astype(bool)
    assert unknown.any()
    assert not ((whole | core) & unknown).any()
