"""YoloAdapter: what it promises the core, what it refuses; no detector is trained here."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.adapter import Injection
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample
from gansynth.core.source import SourceRequest
from gansynth.hosts.record import usual_output
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.sampling.opening import open_drawer
from gansynth.testing import check_adapter
from gansynth_cli.augment_options import host_settings
from gansynth_yolo.adapter import YoloAdapter
from gansynth_yolo.config import RUNS, Choices, YoloConfig
from gansynth_yolo.detectors import detector
from gansynth_yolo.source import open_yolo
from tests.yolo_sets import toy_yolo


def adapter_of(data: Path, **asked: Any) -> YoloAdapter:
    return YoloAdapter(open_yolo(SourceRequest("yolo", str(data), **asked)))


@pytest.fixture
def augment(refuse, shared_yolo, box_run, tmp_path):
    """A dry run that must be refused: ``augment("--set", "epochs=0", code=2, says=["epochs"])``."""

    def run(*more: object, code: int, says: list[str], data=shared_yolo, run=box_run, ratio="1:1"):
        named = () if run is None else ("--generator", run)
        usual = (
            () if any("output=" in str(m) for m in more) else (f"--set=output={tmp_path / 'o'}",)
        )
        refuse(
            *("augment", "--target", "yolo", "--data", f"yolo:{data}", *named),
            *("--ratio", ratio, "--dry-run", *usual, *more),
            code=code,
            says=says,
        )
        assert not (tmp_path / "o").exists()

    return run


@pytest.fixture
def changed(box_run, tmp_path) -> Callable[..., Path]:
    """A copy of the run whose manifest is another: ``changed(heeds=[])``."""

    def make(**values: Any) -> Path:
        folder = Path(tmp_path / "changed")
        shutil.copytree(box_run, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))
        return folder

    return make


def lineage_with(run: Path, record: Any) -> dict[str, Any]:
    """The lineage of a run that has seen one more case."""
    lineage: dict[str, Any] = json.loads((run / "manifest.json").read_text())["lineage"]
    return {**lineage, "cases": [*lineage["cases"], record]}


# -- what the core asks of every adapter -------------------------------------------------------


def test_it_keeps_the_contract_of_adapters(shared_yolo, tmp_path):
    adapter = adapter_of(shared_yolo)

    def draw(slots, index):
        drawn = slots.primary(index % len(slots))
        if drawn.image is None:
            return [adapter.source.load(adapter.source.train_ids[drawn.real]).image]
        return [drawn.image, drawn.boxes, drawn.labels]

    report = check_adapter(
        adapter, workspace=tmp_path, dataset=lambda: adapter.source.train_ids, draw=draw
    )
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}


def test_a_sample_without_boxes_or_of_another_class_is_not_let_in(shared_yolo):
    adapter = adapter_of(shared_yolo)
    image = np.zeros((1, 8, 8), np.float32)
    coords = np.array([[0, 0, 2, 2]], np.float32)
    assert adapter.finalise(Sample(image, None, Boxes(coords, np.zeros(1, np.int16)))) == {}
    with pytest.raises(DataFault, match="no boxes"):
        adapter.finalise(Sample(image))
    with pytest.raises(DataFault, match="box class 1, expected 0 to 0"):
        adapter.finalise(Sample(image, None, Boxes(coords, np.ones(1, np.int16))))


def test_samples_are_drawn_in_the_size_the_generator_was_fitted_in(shared_yolo, box_run):
    adapter = adapter_of(shared_yolo)
    drawer, bring = open_drawer(adapter, box_run, SampleRequest(), device="cpu")
    assert adapter.host.size == (64, 64)
    assert drawer.source.space.size == (32, 32)
    sample = Sample(np.zeros((1, 32, 32), np.float32))
    assert bring is not None
    assert bring(sample) is sample


def test_samples_of_other_classes_are_not_brought(shared_yolo, tmp_path):
    other = adapter_of(toy_yolo(tmp_path / "other", names=("tumour",))).source
    with pytest.raises(IntegrityFault, match="box_classes"):
        adapter_of(shared_yolo).bring(other, other.space)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "epochs=0"], ["--set epochs=0", "greater than or equal to 1"]),
        (["--set", "workers=-1"], ["--set workers=-1", "greater than or equal to 0"]),
        (["--set", "cache=disk"], ["--set cache=disk", "'off' or 'ram'"]),
        (["--set", "device=tpu"], ["--set device=tpu", "cuda:N"]),
        (["--set", "resume=maybe"], ["--set resume=maybe", "yes or no"]),
        (["--set", "epoch=3"], ["--set epoch", "Did you mean 'epochs'?"]),
        (["--detector", "darknet"], ["--detector darknet", "'libreyolo' or 'ultralytics'"]),
        (["--", "mosaic"], ["-- mosaic", "KEY=VALUE"]),
        (["--", "mosaic=1", "mosaic=0"], ["mosaic is given twice"]),
        (["--", "resume"], ["gansynth_session.json", "without resume"]),
        (["--augment-synthetic", "no"], ["--augment-synthetic no", "mosaics"]),
        (["--fold", "all"], ["--fold all", "expected fold 0"]),
        (["--boxes", "nowhere"], ["--boxes nowhere"]),
        (["--edit", "elastic"], ["--edit elastic"]),
    ],
    ids=lambda value: "-".join(value).strip("-").replace("=", "-") if len(value) else "",
)
def test_what_cannot_be_is_refused(augment, more, says):
    augment(*more, code=2, says=says)


def test_an_output_that_holds_something_is_left_alone(augment, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    says = ["holds thesis.txt", "--set output="]
    augment("--set", f"output={tmp_path / 'mine'}", code=2, says=says)


def test_what_a_training_that_never_began_left_is_no_obstacle(shared_yolo, tmp_path):
    from gansynth_yolo.adapter import OURS, check_output

    for name in OURS:
        (tmp_path / name).touch()
    config = YoloConfig(Injection(None, Ratio(1, 0)), Choices(), {}, tmp_path)
    check_output(config)


def test_other_data_than_detectors_train_on_are_refused(refuse, tmp_path):
    pictures = toy_yolo(tmp_path / "set").parent / "images" / "train"
    refuse(
        *("augment", "--target", "yolo", "--data", f"pictures:{pictures}", "--ratio", "1:0"),
        code=2,
        says=["expected yolo:data.yaml"],
    )


def test_a_generator_that_heeds_no_boxes_is_refused(augment, changed):
    augment(run=changed(heeds=[]), code=2, says=["not asked for boxes", "cpggan"])


def test_boxes_are_not_asked_of_a_bank(shared_yolo, tmp_path):
    injection = Injection(
        None, Ratio(1, 1), samples=SampleRequest(boxes="training"), bank=tmp_path / "bank"
    )
    with pytest.raises(UsageFault, match="--boxes training: samples come from the bank"):
        adapter_of(shared_yolo).check_origin(injection)


# -- leakage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("how", ["the case itself", "same content", "same subject"])
def test_a_generator_that_has_seen_a_held_out_image_is_refused(
    augment, changed, shared_yolo, box_run, split, how
):
    source = adapter_of(shared_yolo).source
    held = next(case for case in source.held_out_ids if case.startswith(split))
    record = vars(source.record(held))
    others = {"the case itself": [], "same content": ["id", "subject"], "same subject": ["id"]}[how]
    record |= dict.fromkeys(others, "another")
    if how != "same content":
        record |= {"sha256": "0" * 64, "image": "0" * 64, "prints": ()}
    run = changed(lineage=lineage_with(box_run, record))
    augment(run=run, code=6, says=["leakage", held, how])


def test_a_bank_of_a_generator_that_has_seen_a_held_out_image_is_refused(
    augment, shared_yolo, tmp_path
):
    source = adapter_of(shared_yolo).source
    seen = (*source.train_ids[:1], *source.held_out_ids[:1])
    lineage = Lineage(source.name, "0", source.records(seen), source.host)
    spec = BankSpec(source.schema, lineage, "toy", "0" * 64, frozen=False, capacity=2)
    BankWriter.create(tmp_path / "bank", spec).close()
    says = ["leakage: the bank", source.held_out_ids[0]]
    augment("--bank", tmp_path / "bank", run=None, code=6, says=says)


def test_a_generator_of_another_data_set_is_refused(augment, box_run, tmp_path):
    other = toy_yolo(tmp_path / "other", seed=1)
    augment(data=other, code=6, says=["yolo:other", "not the one the run was fitted on"])


def test_a_generator_of_other_classes_is_refused(augment, tmp_path, box_run):
    other = toy_yolo(tmp_path / "toy_yolo", names=("tumour",), seed=1)
    augment(data=other, code=6, says=["box_classes", "lesion", "tumour"])


def test_a_generator_of_the_same_images_is_taken_in_whatever_size(
    run_cli, shared_yolo, box_run, tmp_path
):
    result = run_cli(
        *("augment", "--target", "yolo", "--data", f"yolo:{shared_yolo}", "--ratio", "2813:4000"),
        *("--generator", box_run, "--dry-run", "--json", "--set", f"output={tmp_path / 'o'}"),
    )
    assert result.exit_code == 0, result.stderr
    planned = json.loads(result.stdout)
    assert planned["leakage"].startswith("none")
    assert planned["ratio"] == "2813:4000"
    assert planned["bank_bytes"] > 64 * 32 * 32 * 2
    assert not (tmp_path / "o").exists()


# -- settings ----------------------------------------------------------------------------------


def test_a_detector_is_asked_of_detectors_only():
    def chosen(
        settings: dict[str, str], detector: str | None, known: dict[str, str], target: str
    ) -> dict[str, str]:
        said = {"detector": detector}
        return host_settings(settings, known, target, said, output=None, options=())[0]

    assert chosen({}, "ultralytics", {"detector": ""}, "yolo") == {"detector": "ultralytics"}
    assert chosen({"a": "b"}, None, {}, "nnunet") == {"a": "b"}
    with pytest.raises(UsageFault, match="nnunet is no detector, expected --target yolo"):
        chosen({}, "ultralytics", {}, "nnunet")
    with pytest.raises(UsageFault, match="expected one of them"):
        chosen({"detector": "libreyolo"}, "ultralytics", {"detector": ""}, "yolo")


@pytest.mark.parametrize(("name", "extra"), [("libreyolo", "yolo"), ("ultralytics", "ultralytics")])
def test_a_detector_that_is_not_installed_is_named_with_its_extra(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(EnvironmentFault, match=rf"pip install 'gansynth\[{extra}\]'"):
        detector(name)


def test_options_of_the_detector_are_read_as_yaml():
    choices = Choices.read({}, ["mosaic=0.5", "flipud=true", "scale=[0.5, 1]", "name=x", "resume"])
    assert choices.options == {"mosaic": 0.5, "flipud": True, "scale": [0.5, 1], "name": "x"}
    assert choices.resume


def test_what_the_child_is_told_is_read_back(box_run, tmp_path):
    injection = Injection(
        RunFolder(box_run), Ratio(1, 2), samples=SampleRequest(boxes="training", keep_flawed=True)
    )
    config = YoloConfig(
        injection,
        Choices.read({"imgsz": "64"}, ["mosaic=0"]),
        SourceRequest("yolo", "data.yaml").to_json(),
        tmp_path,
        patience=2.5,
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_json()))
    assert YoloConfig.read(file) == config
    file.write_text("{}")
    with pytest.raises(IntegrityFault, match="injection"):
        YoloConfig.read(file)


def test_results_go_where_their_name_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    injection = Injection(RunFolder(tmp_path), Ratio.parse("2813:4000"))
    assert usual_output(RUNS, "yolo:brain scans", injection) == (
        tmp_path / "runs" / "yolo" / "brain-scans_2813-4000"
    )
