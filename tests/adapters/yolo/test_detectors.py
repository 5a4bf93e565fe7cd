import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gansynth_yolo
from gansynth.core.ratio import Ratio
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth_yolo.detectors import DETECTORS, detector
from gansynth_yolo.mirror import mirror
from gansynth_yolo.mixed import EpochSlots
from tests.adapters.yolo.conftest import fill_bank
from tests.adapters.yolo.detector_child import STOPPED, needs, run_jobs
from tests.conftest import content, is_installed
from tests.expected import raises_fault
from tests.yolo_sets import opened, toy_yolo

REAL = 16
NAMES = [
    pytest.param("libreyolo", marks=needs("libreyolo")),
    pytest.param("ultralytics", marks=[needs("ultralytics"), pytest.mark.slow]),
]
ULTRALYTICS = pytest.mark.parametrize("toy", NAMES[1:], indirect=True)
OPEN = {"libreyolo": {"no_aug_epochs": 0}, "ultralytics": {"close_mosaic": 0}}
"""Mosaics to the end."""
MIXUP = {"mosaic": 0.0, "mixup": 1.0, "cutmix": 0.5, "close_mosaic": 0}
MOSAIC: dict[str, dict[str, Any]] = {
    "libreyolo": {"workers": 2, "options": {"no_aug_epochs": 0, "mixup": 1.0}},
    "ultralytics": {"workers": 2, "epochs": 4, "options": {"close_mosaic": 1}},
}
BOTH: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"options": {"epochs": 3}}, "Usage: -- epochs=3: .* --set epochs="),
    ({"options": {"mosiac": 0.5}}, "Usage: -- mosiac=0.5: .* Did you mean 'mosaic"),
    ({"model": "missing.pt"}, "Data: .*missing.pt: no such file; weights are not downloaded"),
]
TOLD: dict[str, list[tuple[dict[str, Any], str]]] = {
    "libreyolo": [
        *BOTH,
        ({"model": "yolox_n"}, "Usage: .*Did you mean 'yolox-n'"),
        ({"options": {"erasing": 0.5}}, "Usage: -- erasing=0.5: .*yolox has no such option"),
        ({"options": {"class_balanced": True}}, "Usage: -- class_balanced=True: expected"),
        ({"options": {"lr0": "fast"}}, "Usage: -- lr0=fast: libreyolo rejects the value"),
        ({"options": {"distill_model": "n.pt"}}, "Data: -- distill_model=n.pt: no such file"),
    ],
    "ultralytics": [
        *BOTH,
        ({"options": {"mosaic": 0.5, "amp": "bf16", "freeze": [1, 2], "rect": False}}, ""),
        ({"options": {"rect": True}}, "Usage: -- rect=True: expected rect=False: "),
        ({"options": {"fraction": 0.5}}, "Usage: -- fraction=0.5: expected fraction=1.0: "),
        ({"options": {"mosaic": "much"}}, "Usage: .*'mosaic=much' is of invalid type str"),
        ({"options": {"pretrained": "no.pt"}}, "Data: -- pretrained=no.pt: no such file"),
        ({"model": "yolo11q"}, "Usage: .*no such model.* Did you mean 'yolo11"),
        ({"model": "yolo11n-seg.yaml"}, "Usage: .*its head is Segment, expected Detect"),
    ],
}


class Toy:
    """A user's data set, a bank, and what may be written to.

    Samples have one bright rectangle each, right where their box is.
    """

    def __init__(self, folder: Path, name: str, samples: int = 200) -> None:
        if not is_installed(name):
            pytest.skip(f"needs the extra {DETECTORS[name].extra}: {name}")
        self.folder, self.name, self.user = folder, name, folder / "user"
        toy_yolo(self.user, train=REAL, val=8, test=0)
        # One of those that ultralytics rewrites: a JPEG that lacks its last bytes.
        png = next((self.user / "images" / "train").glob("*.png"))
        Image.open(png).save(png.with_suffix(".jpg"), quality=95)
        png.unlink()
        with png.with_suffix(".jpg").open("ab") as stream:
            stream.write(b"\0\0")
        self.before = content(self.user)
        rng, drawn = np.random.default_rng(7), []
        for _ in range(samples):
            top, left = rng.integers(4, 32, 2)
            height, width = rng.integers(8, 21, 2)
            image = np.full((1, 64, 64), 0.25, np.float32)
            image[:, top : top + height, left : left + width] = 1
            drawn.append((image, np.array([[top, left, top + height, left + width]], np.float32)))
        self.bank = fill_bank(folder / "bank", drawn, frozen=samples > 0)

    def job(self, channels: int = 1, **job: Any) -> dict[str, Any]:
        data = self.folder / f"mirror{channels}" / "data.yaml"
        if not data.exists():
            mirror(opened(self.user / "data.yaml"), data.parent, channels=channels)
        places = {"name": self.name, "data": str(data), "bank": str(self.bank)}
        return {**places, "channels": channels, **job}

    def run(self, **jobs: dict[str, Any]) -> Any:
        done = run_jobs(
            self.folder / "jobs", **{name: self.job(**job) for name, job in jobs.items()}
        )
        assert content(self.user) == self.before
        return done

    def train(self, **job: Any) -> Any:
        return self.run(one=job)["one"]


def check_epochs(seen: list[list[str]], samples: int = REAL) -> None:
    """Every epoch has every real image once, and so many samples."""
    for names in seen:
        real = [name for name in names if not name.startswith("synthetic")]
        assert len(real) == len(set(real)) == REAL
        assert len(names) == REAL + samples


def check_partners(partners: list[int], p: float = 0.5) -> None:
    """On average they have the ratio."""
    count = sum(partners)
    assert count > 100
    assert abs(partners[1] - p * count) < 4 * (count * p * (1 - p)) ** 0.5


def check_found(images: list[Any]) -> None:
    """Boxes are in pixels of the file."""
    found = [np.array(boxes).reshape(-1, 4) for boxes in images]
    assert len(found) == 8
    assert max(map(len, found)) <= 300
    boxes = np.concatenate(found)
    assert boxes.min() >= 0
    assert 32 < boxes.max() <= 64


@pytest.fixture(scope="module", params=NAMES)
def toy(request, tmp_path_factory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"), request.param)


@pytest.fixture(scope="module")
def done(toy) -> Any:
    """One process looks at jobs, and trains with two workers (``mosaic``)."""
    checked = {"changes": [change for change, _ in TOLD[toy.name]]}
    return toy.run(checked=checked, mosaic=MOSAIC[toy.name])


def test_a_job_is_taken_or_refused_in_one_line(toy, done):
    """And ultralytics is imported late, and offline."""
    checked = done["checked"]
    for (change, wanted), said in zip(TOLD[toy.name], checked["said"], strict=True):
        kind, _, words = wanted.partition(": ")
        assert re.fullmatch(f"{kind}Fault: {words}.*" if wanted else "", said), (change, said)
    assert (checked["early"], checked["online"]) == (False, False)


def test_ultralytics_is_imported_by_one_package():
    root = Path(gansynth_yolo.__file__).parents[2]
    shelves = (root / shelf for shelf in ("gansynth", "adapters", "plugins", "cli"))
    importing = re.compile(r"(import|from|import_module\(.) ?ultralytics")
    files = (file for shelf in shelves for file in shelf.rglob("*.py"))
    assert {f.parent.name for f in files if importing.search(f.read_text("utf-8"))} == {"agpl"}


@pytest.mark.fault(44)
@pytest.mark.parametrize("found", [None, "8.5.0", "8", "1.5.9", "1.7.0"])
def test_a_detector_that_is_missing_or_of_another_release_is_refused(monkeypatch, found):
    monkeypatch.setattr("gansynth_yolo.detectors.version_of", lambda name: found)
    state = f"version {found}" if found else "not installed"
    for name in DETECTORS:
        with raises_fault("yolo.detector-release-not-installed", names=state):
            detector(name)


@pytest.mark.parametrize("generator", [[], ["--generator", "run"]])
def test_the_one_command_says_so_before_it_opens_data(monkeypatch, refuse, generator):
    monkeypatch.setattr("gansynth_yolo.detectors.version_of", lambda name: None)
    words = ["yolo:boxes", *generator, "--ratio", "1:1", "-o", "out"]
    refuse("augment", *words, code=4, says=["--detector libreyolo: not installed"])


def test_each_epoch_has_exactly_the_ratio_and_partners_have_it_on_average(done):
    mosaic = done["mosaic"]
    check_epochs(mosaic["seen"])
    check_partners(mosaic["partners"])
    drawn = [name for names in mosaic["seen"] for name in names if name.startswith("synthetic")]
    # Draws of 200: were they the same for both workers, half of them would be.
    assert len(set(drawn)) > 0.7 * len(drawn)


def test_progress_is_told_and_a_finished_training_gives_its_weights_again(toy, done):
    mosaic, epochs = done["mosaic"], MOSAIC[toy.name].get("epochs", 2)
    assert mosaic["told"][:2] == [[*range(1, epochs + 1)], epochs * 2 * REAL // 8]
    assert {"mAP50", "mAP50-95"} < set(mosaic["told"][2])
    assert mosaic["again"] == mosaic["weights"]
    assert Path(mosaic["weights"]).name == "best.pt"
    check_found(mosaic["found"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_stopped_goes_on_without_partners_where_nothing_is_augmented(
    tmp_path, name
):
    job: dict[str, Any] = {"cache": "ram", "augment": False, "epochs": 3, "stop": 1}
    libre, ultra = {"ratio": "2:3", "batch": 12}, {"channels": 3, "imgsz": 96}
    plain = Toy(tmp_path, name).train(**job, **(libre if name == "libreyolo" else ultra))
    assert plain["fault"] == f"TrainingFault: {name}: {STOPPED}"
    assert plain["told"][0] == [1, 2, 3]
    check_epochs(plain["seen"], 24 if name == "libreyolo" else REAL)
    assert plain["partners"] == [0, 0]
    check_found(plain["found"])
    if name == "ultralytics":
        assert plain["convolution"] == 3
        # Samples are enlarged from 64 to 96 pixels, which blurs an edge by less than a pixel.
        assert 0 < plain["off"] < 1


@ULTRALYTICS
def test_ultralytics_validates_itself_and_has_the_channels_of_the_set(done):
    assert done["mosaic"]["validation"] == ["YOLODataset", 8]
    assert "corrupt JPEG restored" not in done["log"]
    assert done["mosaic"]["convolution"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("ultralytics", {"channels": 3, "ratio": "2:1", "epochs": 4}),
        ("ultralytics", {"workers": 2, "cache": "ram", "ratio": "1:3", "epochs": 4}),
        ("ultralytics", {"workers": 2, "cache": "disk", "channels": 3, "epochs": 4}),
        *(("ultralytics", {"model": f"yolo{m}"}) for m in ("11n.yaml", "26n", "v8n", "v10n")),
        ("ultralytics", {"epochs": 6, "options": MIXUP}),
        ("libreyolo", {"model": "yolo9-t"}),
        ("libreyolo", {"workers": 2, "start": "spawn"}),
    ],
)
def test_every_way_of_loading_and_every_family(tmp_path, name, job):
    told = Toy(tmp_path, name).train(**{"options": OPEN[name], **job})
    ratio = Ratio.parse(job.get("ratio", "1:1"))
    check_epochs(told["seen"], round(REAL * ratio.synthetic / ratio.real))
    check_partners(told["partners"], ratio.p)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "schedule", "job", "shares"),
    [
        ("ultralytics", "anneal:0%-75%", {"epochs": 4}, [5 / 12, 3 / 12, 1 / 12, 0]),
        ("libreyolo", "finetune:20%@50%", {"ratio": "0:1", "chosen": [1, 2]}, [1, 0]),
    ],
)
def test_schedules_count_epochs(tmp_path, name, schedule, job, shares):
    options = {**OPEN[name], **({"eval_interval": 0} if name == "libreyolo" else {})}
    told = Toy(tmp_path, name).train(schedule=schedule, options=options, **job)
    synthetic = [np.mean([n.startswith("synthetic") for n in names]) for names in told["seen"]]
    assert synthetic == pytest.approx(shares, abs=1 / 32)
    if name == "libreyolo":
        assert {*told["seen"][-1]} == {"real,1", "real,2"}
        # Its head is not decoded where a training was not validated: weights are opened anew.
        assert (Path(told["weights"]).name, len(told["found"])) == ("last.pt", 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_samples_real_images_train_or_nothing_does(tmp_path, name):
    jobs: dict[str, dict[str, Any]] = {
        "mixed": {"workers": 2, "options": OPEN[name]},
        "strict": {"workers": 2, "strict": True},
        "alone": {"ratio": "0:1"},
    }
    done = Toy(tmp_path, name, samples=0).run(**jobs)
    assert not any(n.startswith("synthetic") for names in done["mixed"]["seen"] for n in names)
    assert [len(names) for names in done["mixed"]["seen"]] == [2 * REAL] * 2
    for job in ("strict", "alone"):
        assert re.fullmatch("TrainingFault: .*no synthetic sample after.*", done[job]["fault"])


@pytest.mark.slow
def test_libreyolo_begins_with_the_weights_it_is_given(tmp_path):
    import torch

    begun = Toy(tmp_path / "a", "libreyolo").train(epochs=1)["weights"]
    still = {"lr0": 0.0, "warmup_epochs": 0, "ema": False}
    on = Toy(tmp_path / "b", "libreyolo").train(epochs=1, model=begun, options=still)["weights"]
    before, after = (torch.load(path, weights_only=True)["model"] for path in (begun, on))
    key = "backbone.backbone.stem.conv.conv.weight"
    assert torch.equal(before[key], after[key])


@needs("libreyolo")
def test_real_images_come_as_libreyolo_reads_them_and_boxes_are_of_the_same_draw(tmp_path):
    libre = Toy(tmp_path, "libreyolo", samples=40)
    detector("libreyolo")  # also with a CPU build of torch
    from libreyolo.data.dataset import YOLODataset

    from gansynth_yolo.libre import EvenBatchSampler, MixedLibreDataset

    slots = EpochSlots(MixerConfig(libre.bank, Ratio(1, 1)), REAL, 1)
    images = sorted((libre.user / "images" / "train").iterdir(), reverse=True)
    labels = [libre.user / "labels" / "train" / f"{path.stem}.txt" for path in images]
    data = MixedLibreDataset(slots, img_files=images, label_files=labels, img_size=128)
    stock = YOLODataset(img_files=data.img_files, label_files=data.label_files, img_size=128)
    assert data.img_files == sorted(data.img_files)
    for index in range(REAL):
        data.begin(index)
        mine, other = data.pull_item(index), stock.pull_item(index)
        assert np.array_equal(mine[0], other[0])
        assert np.array_equal(mine[1], other[1])
        assert mine[2:] == other[2:]
    for index in (20, 20, 25):
        if index == 25:
            data.begin(index)
        image, ((left, top, right, bottom, label),), size, _ = data.pull_item(index)
        assert (image.shape, size, label) == ((128, 128, 3), (64, 64), 0)
        rows, columns = (np.flatnonzero((image[..., 0] > 160).any(axis)) for axis in (1, 0))
        shown = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(shown, [left, top, right, bottom])).max() <= 1
    for count, sizes in ((33, [7, 7, 7, 6, 6]), (16, [8, 8])):
        batches = list(EvenBatchSampler(range(count), 8))
        assert [len(b) for b in batches] == sizes
        assert sorted(place for b in batches for place in b) == list(range(count))


@needs("libreyolo")
def test_weights_that_a_kill_has_damaged_are_replaced_by_their_copy(tmp_path):
    detector("libreyolo")
    import torch

    from gansynth_yolo import libre

    last, copy = tmp_path / "last.pt", tmp_path / libre.COPY
    torch.save({"epoch": 3, "model": torch.ones(100)}, last)
    sound, one = last.read_bytes(), torch.ones(1).numpy().tobytes()
    for damaged in (sound[:-100], sound.replace(one, bytes(4), 1)):
        copy.write_bytes(sound)
        last.write_bytes(damaged)
        assert libre._epochs_done(last) == 4
    last.write_bytes(b"damaged again")
    with raises_fault("yolo.libreyolo-weights-not-resumable"):
        libre._epochs_done(last)
