from typing import Any

import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource, check_host
from gansynth_segmenter.host import SegmenterHost
from gansynth_segmenter.options import SegmenterOptions


def real(**words: Any) -> AugmentRequest:
    """A training without samples."""
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
    host = SegmenterHost(source)
    settings = {"network": network, "width": "4", **more}
    report = check_host(host, workspace=tmp_path, settings=settings)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    whole, cut = (sorted((tmp_path / name).rglob("*.safetensors")) for name in ("whole", "cut"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in cut] != []


class NothingHeldOut(ToySource):
    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ()


def test_a_fold_without_held_out_cases_is_refused():
    with pytest.raises(UsageFault, match="holds no case out"):
        SegmenterHost(NothingHeldOut(3)).validate()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": "0"}, "steps=0.*greater than or equal to 1"),
        ({"steps": "3", "epochs": "2"}, "epochs=2: cannot be combined with steps=3"),
        ({"regions": "WT:1+9"}, r"regions=WT:1\+9.*labels '1\+9'; expected values among 1, 2"),
        ({"regions": "1:2"}, "name '1'"),
        ({"patch": "8,8"}, "patch=8x8: 2 edges, expected 3"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "fp16"}, "fp16: expected a CUDA device"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused(settings, says, tmp_path):
    request = real(set={"output": str(tmp_path / "o"), **settings})
    with pytest.raises(UsageFault, match=says):
        SegmenterHost(ToySource(3)).check(request)
    assert not (tmp_path / "o").exists()


def test_it_has_no_command_line():
    with pytest.raises(UsageFault, match="no command line"):
        SegmenterHost(ToySource(3)).check(real(options="-x"))


def test_two_hundred_epochs_are_counted_in_samples_of_the_real_cases():
    assert SegmenterOptions().steps_for(12) == 1200
    assert SegmenterOptions(epochs=1.5, batch_size=4).steps_for(12) == 5
    assert SegmenterOptions(steps=7).steps_for(12) == 7


class Uncut(ToySource):
    @property
    def space(self) -> Space:
        return Space("native", ())


def test_cases_of_any_shape_need_a_patch():
    with pytest.raises(UsageFault, match="--set patch=64"):
        SegmenterHost(Uncut(3)).check(real())
    SegmenterHost(Uncut(3)).check(real(set={"patch": 8}))


class SmallCrops(ToySource):
    @property
    def space(self) -> Space:
        return Space("crop", (8, 16, 16))


def test_a_bank_of_samples_that_are_too_small_is_refused(bank_of):
    request = real(ratio="1:1", bank=bank_of(SmallCrops(3)))
    says = r"samples have \(8, 16, 16\) voxels, expected at least \(16, 16, 16\)"
    with pytest.raises(UsageFault, match=says):
        SegmenterHost(ToySource(3)).check(request)


def test_a_dry_run_says_what_would_be_trained(tmp_path):
    settings = {"output": str(tmp_path / "o"), "network": "pix2pix", "steps": "7", "device": "cpu"}
    request, adapter = real(set=settings), SegmenterHost(ToySource(3))
    told = adapter.planned(request)
    assert (told["network"], told["steps"]) == ("pix2pix", 7)
    assert told["trained_on"] == {"grid": "crop", "size": [16, 16, 16]}
    assert adapter.samples_drawn(request) == 14
