"""Features of segmenters that were trained for a few steps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.errors import DataFault, UsageFault
from gansynth.host_features import host_features
from gansynth.ratio import Ratio
from gansynth.schema import Case
from gansynth.space import Space
from gansynth.testing import ToySource, check_adapter
from gansynth_segmenter import load_segmenter
from gansynth_segmenter.adapter import SegmenterAdapter
from gansynth_segmenter.networks import probabilities


@pytest.fixture
def trained(train, tmp_path) -> Any:
    """Trains on toy cases: ``trained(2)`` of two axes; its folder, cases and their schema."""

    def make(source: Any = None, **settings: str) -> tuple[Path, list[Any], Any]:
        source = source or ToySource(3)
        train("host", settings, source=source, ratio=Ratio(1, 0))
        return tmp_path / "host", list(source.cases())[:3], source.schema

    return make


def logits_of(folder: Path, image: Any) -> Any:
    """Logits (labels, ...) of the network alone, of an image of the training's size."""
    net = load_segmenter(folder, "cpu").generator.nets["generator"].eval()
    with torch.no_grad():
        return net(torch.tensor(image)[None], [])[0].numpy()


def head_of(folder: Path) -> tuple[Any, Any]:
    layer: Any = load_segmenter(folder, "cpu").generator.nets["generator"].image
    weight = layer.weight.detach().numpy()
    return weight.reshape(weight.shape[:2]), layer.bias.detach().numpy()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_times_the_last_layers_weights_they_are_the_networks_logits(trained, ndim, masked):
    folder, (case, *_), schema = trained(ToySource(ndim))
    chosen = case.labels > 0 if masked else np.ones_like(case.labels, bool)
    found, title = host_features(
        folder, [case.image], schema, labels=[case.labels] if masked else None, device="cpu"
    )
    weight, bias = head_of(folder)
    wanted = logits_of(folder, case.image)[:, chosen].mean(1)
    np.testing.assert_allclose(weight @ found[0] + bias, wanted, atol=1e-4)
    assert found.dtype == np.float32
    assert title == "segmenter unet host (4 steps)"


def test_slices_of_a_volume_are_averaged_by_a_network_of_two_axes(trained):
    folder, cases, schema = trained(ToySource(2))
    volume = np.stack([case.image for case in cases], axis=1)
    labels = np.stack([case.labels for case in cases])
    deep = replace(schema, axes="DHW", spacing=(3.0, *schema.spacing))
    found, _ = host_features(folder, [volume], deep, labels=[labels], device="cpu")
    each, _ = host_features(
        *(folder, [case.image for case in cases], schema),
        labels=[case.labels for case in cases],
        device="cpu",
    )
    counts = [(case.labels > 0).sum() for case in cases]
    np.testing.assert_allclose(found[0], np.average(each, axis=0, weights=counts), atol=1e-5)


class Whole(ToySource):
    @property
    def space(self) -> Space:
        return Space("resample", (8, 8, 8), pad_label=-1)


def test_a_network_of_whole_cases_sees_them_as_it_was_trained(trained):
    folder, (case, *_), schema = trained(Whole(3))
    small: Any = load_segmenter(folder, "cpu").space.to_generator(case)
    found, _ = host_features(folder, [case.image], schema, labels=[case.labels], device="cpu")
    weight, bias = head_of(folder)
    wanted = logits_of(folder, small.image)[:, small.labels > 0].mean(1)
    np.testing.assert_allclose(weight @ found[0] + bias, wanted, atol=1e-4)


def test_larger_images_are_seen_through_the_windows_that_predict_them(trained):
    folder, cases, schema = trained()
    large = np.concatenate([case.image for case in cases[:2]], axis=1)[:, :27]
    found, _ = host_features(folder, [large], schema, device="cpu")
    segmenter = load_segmenter(folder, "cpu")
    net = segmenter.generator.nets["generator"].eval()
    with torch.no_grad():
        logits = segmenter.by_windows(Case("large", "", large), lambda part: net(part, []))
    weight, bias = head_of(folder)
    np.testing.assert_allclose(weight @ found[0] + bias, logits.mean((1, 2, 3)), atol=1e-4)


def test_an_image_has_the_same_features_whatever_others_there_are(trained):
    folder, cases, schema = trained()
    rows, _ = host_features(folder, [case.image for case in cases], schema, device="cpu")
    alone, _ = host_features(folder, [cases[2].image], schema, device="cpu")
    np.testing.assert_array_equal(rows[2], alone[0])
    assert np.abs(rows[0] - rows[2]).max() > 1e-4


def test_pix2pix_has_features_at_half_the_resolution(trained):
    folder, (case, *_), schema = trained(network="pix2pix")
    found, title = host_features(folder, [case.image], schema, device="cpu")
    segmenter = load_segmenter(folder, "cpu")
    seen: list[Any] = []
    layer: Any = segmenter.generator.nets["generator"].image
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    probabilities(segmenter.generator, torch.tensor(case.image)[None])
    hook.remove()
    assert seen[0].shape[2:] == (8, 8, 8)
    np.testing.assert_allclose(found[0], seen[0][0].mean((1, 2, 3)).numpy(), atol=1e-5)
    assert title == "segmenter pix2pix host (4 steps)"


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_adapter_keeps_the_contract(trained, tmp_path, ndim):
    folder, _, _ = trained(ToySource(ndim))
    adapter = SegmenterAdapter(ToySource(ndim))
    report = check_adapter(adapter, workspace=tmp_path / "work", trained=folder)
    assert report.passed, report.failed
    looks = [check.verdict for check in report.checks if check.name.startswith("features: ")]
    assert looks == ["passed"] * 7


# -- what is refused -------------------------------------------------------------------------------


def test_other_channels_are_refused(trained):
    folder, (case, *_), schema = trained()
    narrow = replace(schema, channels=("first",), outside_fill=(0.0,))
    with pytest.raises(DataFault, match=r"trained on 2 channel\(s\), the images have 1 \(first\)"):
        host_features(folder, [case.image[:1]], narrow, device="cpu")


def test_slices_are_nothing_for_a_network_of_volumes(trained):
    folder, (case, *_), schema = trained()
    flat = replace(schema, axes="HW", spacing=(1.0, 1.0))
    with pytest.raises(UsageFault, match="sees volumes, the images are slices"):
        host_features(folder, [case.image[:, 3]], flat, device="cpu")


def test_it_knows_its_folders_by_what_is_in_them(trained, tmp_path):
    folder, _, _ = trained()
    assert SegmenterAdapter.recognises(folder)
    assert not SegmenterAdapter.recognises(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "segmenter.json").unlink()
    assert not SegmenterAdapter.recognises(tmp_path / "copy")
