"""``--conditions nnunet:ID``: cases of another nnU-Net data set, preprocessed alike."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gansynth.bank.api import fill_bank
from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import open_nnunet

ASKED = SampleRequest(conditions={"kind": "nnunet", "where": "502"}, edits=("transplant",))


@pytest.fixture
def two(toy_copy):
    """The toy data set, and another one that is made of its training cases."""
    home = toy_copy.preprocessed
    other = shutil.copytree(home, home.with_name("Dataset502_Other"))
    held_out = set(open_nnunet(toy_copy.request()).held_out_ids)
    for file in other.rglob("*"):
        if file.name.split(".")[0].removesuffix("_seg") in held_out:
            file.unlink()
    (other / "splits_final.json").unlink(missing_ok=True)
    return toy_copy


@pytest.fixture
def run(fitted, two, tmp_path) -> Path:
    """The run, which finds its cases in the copy."""
    copy = Path(shutil.copytree(fitted, tmp_path / "run"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["request"]["root"] = str(two.root)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.fixture
def check(two, run) -> Callable[[], None]:
    """Checks that nnU-Net may train on samples with conditions of the other data set."""
    asked = Injection(RunFolder(run), Ratio(1, 1), samples=ASKED, device="cpu")
    return lambda: NnunetAdapter(open_nnunet(two.request())).check(asked, {}, ())


def test_a_held_out_scan_in_another_data_set_is_a_leak(two, check):
    check()  # what is read alike and not held out passes
    source = open_nnunet(two.request())
    (scan, *_) = source.held_out_ids
    there = two.preprocessed.with_name("Dataset502_Other") / source.folder.name
    for suffix in (".b2nd", "_seg.b2nd"):
        shutil.copy(source.folder / f"{scan}{suffix}", there / f"disguised{suffix}")
    with pytest.raises(IntegrityFault, match=rf"{scan} \(same content as disguised\)"):
        check()


def test_other_intensities_are_refused(two, check):
    plans = two.preprocessed.with_name("Dataset502_Other") / f"{two.plans}.json"
    document = json.loads(plans.read_text())
    for configuration in document["configurations"].values():
        configuration["normalization_schemes"] = ["NoNormalization"] * 2
    plans.write_text(json.dumps(document))
    with pytest.raises(UsageFault, match=r"normalization_schemes is .*NoNormalization.*expected"):
        check()


def test_the_outside_of_other_cases_stays_outside(two, run):
    opened = load_run(run, "cpu")
    source = open_source(opened.request)
    drawer = SampleDrawer(opened, source, ASKED)
    for sample in drawer.draw_raw(0, 3):
        real = drawer.beside(sample)
        assert sample.provenance["dataset"] == "nnunet:Dataset502_Other"
        assert np.array_equal(sample.labels == OUTSIDE, real.labels == OUTSIDE)


def test_a_producer_draws_of_them_and_its_bank_says_so(run, tmp_path):
    bank = fill_bank(run, tmp_path / "bank", 2, request=ASKED, device="cpu")
    reader = BankReader(bank)
    assert reader.spec.samples == ASKED
    own, other = reader.spec.lineage.everyone()
    assert (own.dataset, other.dataset) == ("nnunet:Dataset501_Toy", "nnunet:Dataset502_Other")
    told = [reader.read(sample).provenance for sample in reader.ids()]
    assert {one["dataset"] for one in told} == {"nnunet:Dataset502_Other"}
    assert {one["case"] for one in told} <= {case.id for case in other.cases}
