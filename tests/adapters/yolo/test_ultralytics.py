"""ultralytics really trains, at toy size, with places filled from a bank."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth_yolo.mirror import mirror
from gansynth_yolo.source import YoloSource, open_yolo
from tests.adapters.yolo import ultra_child
from tests.yolo_sets import toy_yolo

REAL, SIGMAS = 16, 4
MOSAIC = {"close_mosaic": 0}


def ask(do: str, data: Path, folder: Path, own=None, **job):
    """Have a process of its own do something; its stdout must be one JSON document."""
    asked = {"do": do, "data": str(data), "output": str(folder / "out"), "own": own or {}, **job}
    done = subprocess.run(
        [sys.executable, ultra_child.__file__, json.dumps(asked)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) | {"log": done.stderr}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class Toy:
    """A user's data set, a bank, and what may be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.user = folder, folder / "user"
        toy_yolo(self.user, train=REAL, val=8, test=0)
        spoil(next((self.user / "images" / "train").glob("*.png")))
        self.before = contents(self.user)
        self.bank = ultra_child.write_samples(folder / "bank")

    def do(self, what: str, own=None, channels=1, **job):
        source = open_yolo(SourceRequest("yolo", str(self.user / "data.yaml")))
        assert isinstance(source, YoloSource)
        data = mirror(source, self.folder / "mirror", channels=channels)
        own = {"bank": str(self.bank), **(own or {})}
        return ask(what, data, self.folder, own, channels=channels, **job)


def spoil(png: Path) -> None:
    """Make an image one of those that ultralytics rewrites: a JPEG that lacks its last bytes."""
    jpeg = png.with_suffix(".jpg")
    with Image.open(png) as image:
        image.save(jpeg, quality=95)
    png.unlink()
    jpeg.write_bytes(jpeg.read_bytes() + b"\0\0")


def is_synthetic(name: str) -> bool:
    return name.startswith("synthetic://")


def check_epochs(seen, synthetic=REAL) -> None:
    """Every epoch has every real image once, and so many different samples."""
    for names in seen:
        real = [name for name in names if not is_synthetic(name)]
        assert len(real) == len(set(real)) == REAL
        samples = [name for name in names if is_synthetic(name)]
        assert len(samples) == synthetic


def check_partners(partners, p=0.5) -> None:
    real, synthetic = partners[:2]
    count = real + synthetic
    assert count > 100
    assert abs(synthetic - p * count) < SIGMAS * (count * p * (1 - p)) ** 0.5


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def mosaics(toy):
    """Two workers, a mosaic of every place but in the last epoch."""
    return toy.do("train", epochs=4, workers=2, options={"close_mosaic": 1})


def test_each_epoch_has_exactly_the_ratio_with_two_workers(mosaics):
    assert mosaics["workers"] == 2
    check_epochs(mosaics["seen"])


def test_partners_of_mosaics_have_the_ratio(mosaics):
    check_partners(mosaics["partners"])


def test_samples_differ_between_epochs_and_workers(mosaics):
    drawn = [name for names in mosaics["seen"] for name in names if is_synthetic(name)]
    # 64 draws of 200 give 55 different ones on average; the same for both workers would be 28.
    assert len(set(drawn)) > 45


def test_validation_is_ultralytics_own(mosaics):
    assert mosaics["validation"] == ["YOLODataset", 8]


def test_epochs_and_steps_are_told(mosaics):
    assert mosaics["told"] == [[1, 2, 3, 4], 4 * 2 * REAL // 8]


def test_a_grey_set_has_a_first_convolution_of_one_channel(mosaics):
    assert mosaics["convolution"] == 1


def test_the_users_folder_is_untouched(mosaics, toy):
    assert "corrupt JPEG restored" in mosaics["log"]
    assert contents(toy.user) == toy.before


def test_a_finished_training_gives_its_weights_again(mosaics):
    assert mosaics["again"] == mosaics["best"]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Three channels, images in memory, no augmentation; stopped after an epoch and resumed."""
    toy = Toy(tmp_path_factory.mktemp("resumed"))
    return toy.do("train", {"stop": 1}, channels=3, cache="ram", augment=False, epochs=3, imgsz=96)


def test_a_training_that_stopped_goes_on(resumed):
    assert resumed["fault"] == f"TrainingFault: ultralytics: {ultra_child.STOPPED}"
    assert resumed["told"][0] == [1, 2, 3]
    check_epochs(resumed["seen"])


def test_boxes_lie_where_the_same_draw_has_its_lesion(resumed):
    # Samples are enlarged from 64 to 96 pixels, which blurs an edge by less than a pixel.
    assert 0 < resumed["off"] < 1


def test_without_augmentation_there_are_no_partners(resumed):
    assert resumed["partners"] == [0, 0]


def test_three_channels_stay_three(resumed):
    assert resumed["convolution"] == 3


def test_found_boxes_are_in_pixels_of_the_file(resumed):
    assert len(resumed["found"]) == 8
    assert max(resumed["found"]) <= 300
    assert 32 < resumed["reached"] <= 64


WAYS = {"off": ("2:1", 1 / 3), "ram": ("1:3", 0.75)}
PASSES = 8


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    """Many passes through training sets, at other ratios, without a model."""
    ways = [{"cache": cache, "ratio": ratio} for cache, (ratio, _) in WAYS.items()]
    toy = Toy(tmp_path_factory.mktemp("passes"))
    options = {"mixup": 0.5, **MOSAIC}
    told = toy.do("draw", {"ways": ways, "passes": PASSES}, batch=2, options=options)
    return dict(zip(WAYS, told["ways"], strict=True))


@pytest.mark.parametrize("cache", WAYS)
def test_partners_have_the_ratio_whatever_it_is(passes, cache):
    check_partners(passes[cache]["partners"], WAYS[cache][1])


@pytest.mark.parametrize(("cache", "synthetic"), [("off", REAL // 2), ("ram", 3 * REAL)])
def test_primaries_have_it_exactly(passes, cache, synthetic):
    assert passes[cache]["primaries"] == [PASSES * REAL, PASSES * synthetic]
    assert passes[cache]["typical"] == [1] * synthetic


def test_only_real_images_that_a_mosaic_may_take_stay_in_memory(passes):
    assert passes["off"]["held"]
    assert 0 < passes["off"]["most"] <= passes["off"]["limit"] == 16


# -- the other combinations ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_way_of_loading(tmp_path, workers, cache, channels):
    toy = Toy(tmp_path)
    job = {"workers": workers, "cache": cache, "channels": channels, "epochs": 4}
    told = toy.do("train", **job, options=MOSAIC)
    check_epochs(told["seen"])
    check_partners(told["partners"])
    assert told["convolution"] == channels
    assert contents(toy.user) == toy.before


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolo26n", "yolov8n", "yolov10n"])
def test_models(tmp_path, model):
    check_epochs(Toy(tmp_path).do("train", model=model)["seen"])


@pytest.mark.slow
def test_mixup_and_cutmix_have_unbiased_partners(tmp_path):
    options = {"mosaic": 0.0, "mixup": 1.0, "cutmix": 0.5, **MOSAIC}
    check_partners(Toy(tmp_path).do("train", epochs=6, options=options)["partners"])


@pytest.mark.slow
def test_annealing_ends_with_real_images_only(tmp_path):
    own = {"schedule": "anneal:0%-75%"}
    told = Toy(tmp_path).do("train", own, epochs=4, workers=2, options={"close_mosaic": 1})
    shares = [sum(map(is_synthetic, names)) / len(names) for names in told["seen"]]
    assert [len(names) for names in told["seen"]] == [2 * REAL] * 4
    assert shares == pytest.approx([5 / 12, 3 / 12, 1 / 12, 0], abs=1 / 32)


@pytest.mark.slow
def test_an_empty_bank_gives_real_images(tmp_path):
    toy = Toy(tmp_path)
    toy.bank = ultra_child.write_samples(tmp_path / "empty", samples=0)
    told = toy.do("train", options={**MOSAIC, "plots": True, "cls_pw": 0.5})
    assert told["primaries"] == [4 * REAL, 0]
    assert not any(is_synthetic(name) for names in told["seen"] for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bank_that_has_nothing_to_give_ends_a_training_in_one_line(tmp_path, workers):
    toy = Toy(tmp_path)
    toy.bank = ultra_child.write_samples(tmp_path / "empty", samples=0)
    told = toy.do("train", {"ratio": "0:1", "stop": -1}, workers=workers)
    assert told["fault"].startswith(f"TrainingFault: {toy.bank}: no synthetic sample after 1 s")
    assert "\n" not in told["fault"]


@pytest.mark.slow
def test_it_learns(tmp_path):
    toy = Toy(tmp_path)
    toy.user = tmp_path / "more"
    toy_yolo(toy.user, train=64, val=8, test=0, backgrounds=0, seed=1)
    told = toy.do("train", {"ratio": "4:1"}, epochs=40, augment=False, options={"nbs": 8})
    assert told["hits"] > 0.6
