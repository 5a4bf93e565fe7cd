"""Runs of other kinds: one model per channel, a GAN that draws from noise, a space of slices."""

from pathlib import Path

import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.evaluation.evaluate import EvaluationOptions, evaluate
from gansynth.evaluation.opening import Wanted
from gansynth.runtime.progress import NullReporter
from tests.evaluation.gatherings import LITTLE

FEW = Wanted(request=SampleRequest(keep_flawed=True), number=12)
PARTS = EvaluationOptions(
    ("realism", "memorisation"), ("spectrum", "diversity"), effort=LITTLE, pictures=False
)
SMALL = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "batch_size": 1, "steps": 4}
FLAT = {"width": 4, "max_width": 8, "latent": 4, "batch_size": 4, "steps": 4, "diversity": 0}


def texts(**settings: object) -> dict[str, str]:
    return {key: str(value) for key, value in settings.items()}


def test_a_model_per_channel_is_evaluated_as_one(toy_source, tmp_path: Path):
    from gansynth.fitting.composite_fit import fit_composite
    from gansynth.fitting.composite_spec import PerChannel

    spec = PerChannel("cgan3d")
    fit_composite(
        spec,
        SourceRequest("toy", "2"),
        tmp_path / "run",
        settings=texts(**SMALL),
        edits=("flip",),
        device="cpu",
        reporter=NullReporter(),
    )
    found = evaluate(tmp_path / "run", wanted=FEW, options=PARTS, device="cpu")
    assert found["images"]["channels"] == ["first", "second"]
    assert {figure["metric"] for figure in found["figures"]} == {"spectrum", "diversity"}
    assert [a["attack"] for a in found["memorisation"]["membership"]] == ["distance"] * 2


@pytest.fixture
def drawn_from_noise(toy_fit, tmp_path: Path) -> Path:
    toy_fit(tmp_path / "run", generator="dcgan", own=FLAT, edits=None)
    return tmp_path / "run"


def test_samples_from_noise_are_nobodys(drawn_from_noise):
    found = evaluate(drawn_from_noise, wanted=FEW, options=PARTS, device="cpu")
    memory = found["memorisation"]
    assert memory["own"] is None
    assert [a["attack"] for a in memory["membership"]] == ["distance", "discriminator"]


def test_samples_without_labels_have_no_faithfulness(drawn_from_noise):
    options = EvaluationOptions(("faithfulness",), effort=LITTLE, pictures=False)
    found = evaluate(drawn_from_noise, wanted=FEW, options=options, device="cpu")
    assert found["faithfulness"] == {"why": "the samples have neither label maps nor boxes"}
    assert "is not known" in found["words"]["not_shown"][0]
