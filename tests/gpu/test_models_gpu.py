"""Every generator with its main options, runs of several models, filters, on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_spec import PerChannel, PerClass
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from tests.offered import offered
from tests.plugins.test_conformance import IDS, WAYS
from tests.plugins.toys import build, learn
from tests.sampling.test_composite_class import Kinds

pytestmark = pytest.mark.usefixtures("toy_source")
GAN = {"width": "4", "d_width": "4", "levels": "2", "d_levels": "1", "batch_size": "2"}
NOISE = {"width": "4", "latent": "4", "batch_size": "4", "diversity": "4", "log_every": "1"}
LEARNT = ("range:crops=4", "contrast:crops=8,few=2", "novel:crops=4,search=2")


def finite(run: Path, request: SourceRequest, device: Any, **asked: Any) -> bool:
    """Whether samples that the device draws are numbers."""
    drawer = Sampler(load_run(run, str(device)), open_source(request), SampleRequest(**asked))
    samples = drawer.draw_raw(0, 2)
    return len(samples) == 2 and all(np.isfinite(s.image).all() for s in samples)


@pytest.mark.parametrize(("kind", "own", "terms"), WAYS, ids=IDS)
def test_every_generator_learns_with_its_options(device, kind, own, terms):
    generator = build(kind, **own)
    report = learn(generator, 6 if kind == "cpggan" else 2, device=device)
    assert terms <= set(report.losses)
    assert np.isfinite(list(report.losses.values())).all()
    assert generator.device.type == device.type


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("dcgan", {**NOISE, "steps": "2", "with_mask": "yes"}),
        ("copypaste", {}),
        ("elastic", {}),
        ("parametric", {}),
    ],
)
def test_it_is_fitted_and_drawn_from(device, tmp_path, kind, own):
    request = SourceRequest("toy", "2")
    how: dict[str, Any] = {"edits": None, "reporter": NullReporter()}
    fit(kind, request, tmp_path / "run", settings=own, device=str(device), **how)
    assert finite(tmp_path / "run", request, device)


def test_a_dry_run_a_fine_tuning_and_filters_run_there(device, tmp_path):
    request = SourceRequest("toy", "2")
    how: dict[str, Any] = {"edits": ("flip",), "reporter": NullReporter()}
    parts: list[dict[str, Any]] = [{}, {"init_from": tmp_path / "0"}, {"dry_run": True}]
    for number, part in enumerate(parts):
        how |= {"device": str(device), "settings": {**GAN, "steps": "1"}}
        report = fit("cgan3d", request, tmp_path / str(number), **how, **part)
    assert report["device"] == device.type
    run = tmp_path / "1"
    assert finite(run, request, device, filters=LEARNT, keep_flawed=True)
    learnt = {path.name.partition("-")[0] for path in (run / "filters").glob("*-*")}
    assert learnt == {"range", "contrast", "novel"}


def test_a_model_for_each_channel_draws_a_sample(device, tmp_path):
    request, settings = SourceRequest("toy", "2"), {**GAN, "steps": "1"}
    how: dict[str, Any] = {"edits": ("flip",), "device": str(device), "reporter": NullReporter()}
    fit_composite(PerChannel("cgan3d"), request, tmp_path / "run", settings=settings, **how)
    assert finite(tmp_path / "run", request, device)


def test_a_model_for_each_class_draws_its_class(device, tmp_path):
    settings = {**NOISE, "steps": "1", "diversity": "0"}
    how: dict[str, Any] = {"edits": None, "device": str(device), "reporter": NullReporter()}
    spec, request = PerClass("dcgan", "cyst,metastasis"), SourceRequest("kinds", "2")
    with offered("kinds", sources={"kinds": lambda request: Kinds(request.where)}):
        fit_composite(spec, request, tmp_path / "run", settings=settings, **how)
        assert finite(tmp_path / "run", request, device)
