"""Features of a LibreYOLO that was really trained, for one epoch in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.adapter import Injection
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.host_features import host_features
from gansynth.ratio import Ratio
from gansynth.sources.base import SourceRequest
from gansynth.testing import check_adapter
from gansynth_yolo.adapter import CONFIG, YoloAdapter
from gansynth_yolo.config import Choices, YoloConfig
from gansynth_yolo.libre_options import engine
from gansynth_yolo.source import YoloSource, open_yolo
from tests.adapters.yolo.banks import write_bank

CHILD = Path(__file__).with_name("libre_child.py")
REAL = 16


def write_config(folder: Path, source: YoloSource, detector: str = "libreyolo") -> None:
    config = YoloConfig(
        Injection(None, Ratio(1, 0)), Choices(detector), source.request.to_json(), folder
    )
    (folder / CONFIG).write_text(json.dumps(config.to_json()))


@pytest.fixture(scope="module")
def source(shared_yolo) -> YoloSource:
    return open_yolo(SourceRequest("yolo", str(shared_yolo), read={"size": "64x48"}))


@pytest.fixture(scope="module")
def host(source, shared_yolo, tmp_path_factory) -> Path:
    """The folder of a training of one epoch."""
    return trained("yolox-n", source, shared_yolo, tmp_path_factory.mktemp("host"))


def trained(model: str, source: YoloSource, data: Path, folder: Path) -> Path:
    write_config(folder, source)
    job = {
        **{"data": str(data), "bank": str(write_bank(folder / "bank", samples=0)), "real": REAL},
        **{"ratio": "1:0", "model": model, "augment": False, "batch": 16, "folder": str(folder)},
        "options": {"eval_interval": 0},
    }
    (folder / "jobs.json").write_text(json.dumps([job]))
    paths = os.pathsep.join((str(CHILD.parents[3]), os.environ.get("PYTHONPATH", "")))
    environ = {**os.environ, "PYTHONPATH": paths, "HTTPS_PROXY": "http://127.0.0.1:9"}
    ran = subprocess.run(
        [sys.executable, CHILD, folder / "jobs.json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    settle(folder / "detector" / "weights" / "last.pt", model, images_of(source, REAL))
    return folder


def settle(weights: Path, model: str, images: list[Any]) -> None:
    """Give normalisation the statistics of a long training: after a step features are all alike."""
    import torch

    name, size = {"yolox-n": ("LibreYOLOX", "n"), "yolo9-t": ("LibreYOLO9", "t")}[model]
    opened = getattr(engine(), name)(str(weights), size=size, nb_classes=1, device="cpu")
    net = opened.model.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    pictures = [opened._preprocess(picture(image), "rgb", 64)[0] for image in images]
    with torch.no_grad():
        net(torch.cat(pictures))
    document = torch.load(weights, weights_only=True)
    torch.save({**document, "model": net.state_dict()}, weights)


def picture(image: Any) -> Any:
    """A grey image (1, H, W) as colours, uint8 (H, W, 3)."""
    return np.repeat(np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8), 3, axis=2)


def network(folder: Path, name: str = "LibreYOLOX", size: str = "n") -> Any:
    """LibreYOLO's own model with the weights in a folder."""
    weights = str(folder / "detector" / "weights" / "last.pt")
    model = getattr(engine(), name)(weights, size=size, nb_classes=1, device="cpu")
    model.model.eval()
    return model


def images_of(source: YoloSource, count: int = 3) -> list[Any]:
    return [source.load(case).image for case in source.train_ids[:count]]


def outputs(model: Any, layers: list[Any], image: Any) -> list[Any]:
    """What last layers make of an image that LibreYOLO reads by itself, as a colour picture."""
    import torch

    seen: list[Any] = []
    hooks = [layer.register_forward_hook(lambda *given: seen.append(given[2])) for layer in layers]
    tensor, *_ = model._preprocess(picture(image), "rgb", 64)
    with torch.inference_mode():
        model.model(tensor)
    for hook in hooks:
        hook.remove()
    return [found[0].numpy() for found in seen]


def test_times_the_last_layers_weights_they_are_the_detectors_outputs(host, source):
    """An image of 64 x 48 lies to the left of a square of 64; what is to the right is padding."""
    images = images_of(source)
    found, title = host_features(host, images, source.schema, device="cpu")
    model = network(host)
    layers = [*model.model.head.cls_preds, *model.model.head.reg_preds]
    for layer, ours in zip(layers, np.split(found[1], 6), strict=True):
        (made,) = outputs(model, [layer], images[1])
        weight, bias = layer.weight.detach().numpy()[..., 0, 0], layer.bias.detach().numpy()
        inside = made[:, :, : -(-made.shape[2] * 3 // 4)]
        np.testing.assert_allclose(weight @ ours + bias, inside.mean((1, 2)), atol=1e-5)
        assert np.abs(weight @ ours).max() > 1e-3
    assert title == f"LibreYOLO yolox-n {host.name} (last weights)"


def test_an_image_has_the_same_features_whatever_others_there_are(host, source):
    images = images_of(source)
    rows, _ = host_features(host, images, source.schema, device="cpu")
    alone, _ = host_features(host, images[2:], source.schema, device="cpu")
    np.testing.assert_array_equal(rows[2], alone[0])
    assert np.abs(rows[0] - rows[2]).max() > 1e-2


def test_the_adapter_keeps_the_contract(host, source, tmp_path):
    report = check_adapter(YoloAdapter(source), workspace=tmp_path, trained=host)
    assert report.passed, report.failed
    looks = {c.name: c.verdict for c in report.checks if c.name.startswith("features: ")}
    assert looks.pop("features: where") == "skipped"
    assert list(looks.values()) == ["passed"] * 6


@pytest.mark.slow
def test_so_it_is_with_yolov9(source, shared_yolo, tmp_path):
    folder = trained("yolo9-t", source, shared_yolo, tmp_path)
    (image,) = images_of(source, 1)
    found, title = host_features(folder, [image], source.schema, device="cpu")
    model = network(folder, "LibreYOLO9", "t")
    towers = [*model.model.head.cv3, *model.model.head.cv2]
    sizes = np.cumsum([tower[2].in_channels for tower in towers])[:-1]
    for tower, ours in zip(towers[:3], np.split(found[0], sizes)[:3], strict=True):
        (made,) = outputs(model, [tower[2]], image)
        layer = tower[2]
        weight, bias = layer.weight.detach().numpy()[..., 0, 0], layer.bias.detach().numpy()
        inside = made[:, :, : -(-made.shape[2] * 3 // 4)]
        np.testing.assert_allclose(weight @ ours + bias, inside.mean((1, 2)), atol=1e-4)
    assert title.startswith("LibreYOLO yolo9-t ")


# -- what is refused -------------------------------------------------------------------------------


@pytest.fixture
def copied(host, tmp_path) -> Callable[[], Path]:
    """A copy that a test may spoil."""

    def copy() -> Path:
        return Path(shutil.copytree(host, tmp_path / "copy"))

    return copy


def test_weights_that_would_run_something_are_refused_and_do_not(copied, source, tmp_path):
    import torch

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    folder = copied()
    torch.save({"evil": Evil()}, folder / "detector" / "weights" / "last.pt")
    with pytest.raises(IntegrityFault, match="not weights that libreyolo wrote"):
        host_features(folder, images_of(source), source.schema, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_training_that_has_left_no_weights_is_refused(copied, source):
    folder = copied()
    (folder / "detector" / "weights" / "last.pt").unlink()
    with pytest.raises(UsageFault, match="missing, expected a trained detector's"):
        host_features(folder, images_of(source), source.schema, device="cpu")


def test_another_library_is_refused(copied, source):
    folder = copied()
    write_config(folder, source, "ultralytics")
    with pytest.raises(UsageFault, match="ultralytics has trained there"):
        host_features(folder, images_of(source), source.schema, device="cpu")


def test_two_channels_are_no_picture(host, source):
    images = [np.repeat(image, 2, axis=0) for image in images_of(source)]
    schema = replace(source.schema, channels=("one", "two"))
    with pytest.raises(DataFault, match=r"trained on 3 channel\(s\), the images have 2 \(one, two"):
        host_features(host, images, schema, device="cpu")


def test_images_that_are_not_between_0_and_1_are_refused(host, source):
    images = [4 * image - 2 for image in images_of(source)]
    with pytest.raises(DataFault, match="expected 0 to 1, as yolo: reads"):
        host_features(host, images, source.schema, device="cpu")


def test_volumes_are_refused(host, source):
    images = [image[:, None] for image in images_of(source)]
    deep = replace(source.schema, axes="DHW", spacing=(1.0, 1.0, 1.0))
    with pytest.raises(UsageFault, match="sees slices, the images are volumes"):
        host_features(host, images, deep, device="cpu")


def test_label_maps_are_refused(host, source):
    images = images_of(source)
    labels = [np.zeros(image.shape[1:], np.int16) for image in images]
    for one in labels:
        one[3, 4] = 1
    schema = replace(source.schema, labels={"background": 0, "lesion": 1})
    with pytest.raises(UsageFault, match="averaged over whole images, expected no label maps"):
        host_features(host, images, schema, labels=labels, device="cpu")


def test_it_knows_its_folders_by_what_is_in_them(host, source, tmp_path):
    assert YoloAdapter.recognises(host)
    write_config(tmp_path, source)
    assert not YoloAdapter.recognises(tmp_path)
