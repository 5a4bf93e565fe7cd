from typing import Any

import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.space import Space
from gansynth.hosts.contract.session import Session
from gansynth.testing import ToySource, check_host
from gansynth_segmenter.host import SegmenterHost
from gansynth_segmenter.options import SegmenterOptions
from tests.adapters.segmenter.conftest import bank_of
from tests.expected import raises_fault


def real(**words: Any) -> AugmentRequest:
    return AugmentRequest(**{"target": "segmenter", "ratio": "1:0", **words})


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("source", "network", "more"),
    [
        (ToySource(3), "unet", {}),
        (ToySource(2), "unet", {}),
        (ToySource(3), "pix2pix", {}),
        pytest.param(
            *(ToySource(3, side=36), "deepmedic", {"factors": "2", "batch_size": "2"}),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["unet", "unet-2d", "pix2pix", "deepmedic"],
)
def test_it_keeps_the_contract_of_hosts(source, network, more, tmp_path):
    settings = {"network": network, "width": "4", **more}
    report = check_host(SegmenterHost, source, workspace=tmp_path, settings=settings)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    whole, cut = (sorted((tmp_path / name).rglob("*.safetensors")) for name in ("whole", "cut"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in cut] != []


class Spaced(ToySource):
    def __init__(self, *space: Any, **more: Any) -> None:
        super().__init__(3)
        self.own = Space(*space, **more)

    @property
    def space(self) -> Space:
        return self.own


TOY, UNCUT = ToySource(3), Spaced("native", ())
DUAL = {"network": "deepmedic"}


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        (TOY, {"steps": "0"}, "options.value-invalid"),
        (TOY, {"steps": "3", "epochs": "2"}, "options.epochs-with-steps"),
        (TOY, {"regions": "WT:1+9"}, "metrics.region-labels-wrong"),
        (TOY, {"patch": "8,8"}, "segmenter.patch-axes-differ"),
        (TOY, {"precision": "fp16"}, "devices.half-precision-without-cuda"),
        (UNCUT, {}, "hosts.whole-cases-without-crop-size"),
        (ToySource(2), {**DUAL, "patch": "64"}, "segmenter.deepmedic-without-crops"),
        (Spaced("resample", (64, 64, 64), pad_label=-1), DUAL, "segmenter.deepmedic-without-crops"),
        (
            TOY,
            {**DUAL, "patch": "57", "factors": "3,5"},
            "segmenter.deepmedic-crops-too-small",
        ),
        (TOY, {**DUAL, "patch": "57", "levels": "3"}, "options.option-without-effect"),
        (TOY, {"network": "unet", "factors": "3"}, "options.option-without-effect"),
    ],
)
def test_what_it_cannot_train_is_refused(source, settings, expected, tmp_path):
    request = real(set={"output": str(tmp_path / "o"), **settings})
    with raises_fault(expected):
        Session.of(request, source).check()
    assert not (tmp_path / "o").exists()


def test_a_fold_without_held_out_cases_is_refused(monkeypatch):
    monkeypatch.setattr(ToySource, "held_out_ids", ())
    with raises_fault("hosts.fold-without-held-out-cases"):
        SegmenterHost(TOY, real()).validate()


def test_cases_of_any_shape_are_cut_to_a_patch():
    Session.of(real(set={"patch": 8}), UNCUT).check()


def test_it_has_no_command_line():
    with raises_fault("hosts.no-own-command-line"):
        Session.of(real(options="-x"), TOY).check()


def test_two_hundred_epochs_are_counted_in_samples_of_the_real_cases():
    assert SegmenterOptions().steps_for(12) == 1200
    assert SegmenterOptions(epochs=1.5, batch_size=4).steps_for(12) == 5
    assert SegmenterOptions(steps=7).steps_for(12) == 7


def test_a_bank_of_samples_that_are_too_small_is_refused(tmp_path):
    bank = bank_of(Spaced("crop", (8, 16, 16)), tmp_path / "bank")
    with raises_fault("hosts.sample-misfits-crops", names="(8, 16, 16)"):
        Session.of(real(ratio="1:1", bank=bank), TOY).check()


def test_a_dry_run_says_what_would_be_trained(tmp_path):
    settings = {"output": str(tmp_path / "o"), "network": "pix2pix", "steps": "7", "device": "cpu"}
    session = Session.of(real(set=settings), TOY)
    told = session.planned()
    assert (told["network"], told["steps"]) == ("pix2pix", 7)
    assert told["trained_on"] == {"grid": "crop", "size": [16, 16, 16]}
    assert session.samples_drawn == 14
