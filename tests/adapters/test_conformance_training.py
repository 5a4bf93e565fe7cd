import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from gansynth import replay
from gansynth.bank.reader import BankReader
from gansynth.bank.training_bank import TrainingBank
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import case_content
from gansynth.core.volumes import read_volume
from gansynth.hosts import augment as api
from gansynth.hosts.contract.session import TRAINING_PROCESS, Session
from gansynth.hosts.deciding import dry_run
from gansynth.sampling.manifest import locked
from tests.adapters.kits import HOSTS, Kit, command, in_this_process, kit_of, synthetic_draws
from tests.conftest import content
from tests.processes import family, until
from tests.producers import gone

pytestmark = pytest.mark.filterwarnings("ignore")
NOBODY = 1 << 23
"""A process id that Linux gives to none."""


@pytest.fixture(autouse=True)
def in_process(monkeypatch, request) -> None:
    """No training has a process of its own, but for those that are killed."""
    if request.node.get_closest_marker("slow") is None:
        in_this_process(monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def idle() -> Iterator[None]:
    """Dry runs do not compare samples with training cases, which takes longer than a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})
        patch.setattr(api, "time_of", lambda *_: {})
        yield


@pytest.fixture(params=HOSTS)
def kit(request, tmp_path) -> Kit:
    """Each host, with folders of its own."""
    return kit_of(request.param, tmp_path, request.getfixturevalue)


Trained = tuple[Kit, Path, dict[str, Any]]
"""A finished training, half of it on samples of a bank that its generator has filled; its words."""


@pytest.fixture(scope="module", params=HOSTS)
def trained(request, tmp_path_factory) -> Trained:
    kit = kit_of(request.param, tmp_path_factory.mktemp("trained"), request.getfixturevalue)
    bank = kit.filled()
    before = content(kit.home), content(bank)
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        result = command(*kit.training(bank, "--json", epochs=1))
    assert result.exit_code == 0, result.stderr
    assert (content(kit.home), content(bank)) == before
    assert family(kit.output) == []  # nobody works on
    return kit, bank, json.loads(result.stdout)


def test_a_training_says_and_records_what_it_has_drawn_of_what(trained):
    kit, bank, said = trained
    reader = BankReader(bank)
    assert said["drawn_real"] == said["drawn_synthetic"] > 0
    assert said["asked_synthetic_share"] == said["realised_synthetic_share"] == 0.5
    assert (said["fell_back"], said["folder"]) == (0, str(kit.output))
    (session,) = kit.sessions()
    drawn, length = session["drawn"], kit.epochs // 2
    assert (session["complete"], session["of_epochs"]) == (True, length)
    assert session["epochs"] == [0, length]
    assert session["asked"] == drawn["realised"] == 0.5
    assert drawn["synthetic"] == said["drawn_synthetic"]
    assert drawn["distinct_synthetic"] == min(drawn["synthetic"], 4)
    assert (drawn["fell_back"], drawn["reasons"], session["chosen"]) == (0, {}, [])
    assert (session["ratio"], session["schedule"]) == ("1:1", "constant")
    assert session["bank"] == f"existing, SHA-256 {reader.sha256}"
    assert session["generator"] == {
        "run_id": reader.spec.run_id,
        "manifest_sha256": reader.spec.generator,
        "bank_sha256": reader.sha256,
    }
    source, lineage = kit.intake().source, session["lineage"]
    assert (lineage["dataset"], lineage["fold"]) == (source.name, "0")
    hashes = {case["id"]: case["sha256"] for case in lineage["cases"]}
    assert hashes == {case: case_content(source, case) for case in source.train_ids}


def test_every_draw_is_in_the_log_and_comes_back_from_it_to_the_bit(trained):
    kit, bank, said = trained
    reader, draws = BankReader(bank), dict(synthetic_draws(kit))
    assert len(draws) == said["drawn_synthetic"]
    lines = {name: line for line, name in draws.items()}
    for name, line in islice(lines.items(), 2):
        again: Any = replay(kit.run, line)
        sample: Any = reader.read(name)
        assert np.array_equal(again.image.astype(sample.image.dtype), sample.image)
        assert np.array_equal(again.labels, sample.labels) or kit.host == "yolo"


def test_typed_again_it_trains_nothing_and_says_what_came_of_it(trained):
    kit, bank, said = trained
    before, words = content(kit.output), kit.training(bank, "--json", epochs=1)
    planned, again = command(*words, "--dry-run"), command(*words)
    assert json.loads(planned.stdout)["training"] in again.stderr
    assert "the training is finished: nothing is trained again" in again.stderr
    assert json.loads(again.stdout) == said
    assert content(kit.output) == before


def test_its_card_tells_how_long_it_was(trained):
    kit, _, _ = trained
    (session,) = kit.sessions()
    made = command("card", str(kit.output), "--methods", "--json")
    assert made.exit_code == 0, made.output
    done = session["of_epochs"]
    framework = json.loads(made.stdout)["table"]["framework"]
    assert framework.endswith(f", {done} of {done} {session['counted_in']}")


@pytest.fixture(scope="module")
def predicted(trained, tmp_path_factory) -> tuple[Kit, Path, dict[str, tuple[int, ...]], Any]:
    """New images, those of ``Scan0`` once more along other axes, and what is predicted of them.

    They are predicted twice; the first of both is killed, and leaves something.
    """
    kit, folder = trained[0], tmp_path_factory.mktemp("predicted")
    images, out = folder / "new", folder / "predicted"
    shapes = kit.new_images(images)
    for file in images.glob("Scan0*.nii.gz"):
        image: Any = nib.load(file)
        turns = ornt_transform(io_orientation(image.affine), axcodes2ornt("PIR"))
        nib.save(image.as_reoriented(turns), images / file.name.replace("Scan0", "Turned"))
    words = ("predict", str(kit.output), str(images), "-o", str(out), "--device", "cpu", "--json")
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        assert command(*words).exit_code == 0
        (out / f".scratch.tmp-{NOBODY}").mkdir()
        return kit, out, shapes, json.loads(command(*words).stdout)


@pytest.mark.fault(29)
def test_new_images_are_predicted_on_the_grid_of_their_files_and_named_as_they_are(
    predicted, refuse
):
    """Typed again, it predicts again, and removes what a killed one has left."""
    kit, out, shapes, said = predicted
    files = {path.name: path for path in map(Path, said["files"])}
    turned = {"Turned.nii.gz"} if kit.host != "yolo" else set()
    assert set(files) == {*shapes, *turned}
    for name, shape in shapes.items():
        assert name.endswith(".txt") or read_volume(files[name]).array.shape == shape
    assert list(out.glob(".*")) == []
    images = out.with_name("new")
    says = [f"{images}: holds Scan0", "take another one: -o"]
    refuse("predict", kit.output, images, "-o", images, code=2, says=says, keep=[images])


def test_an_image_along_other_axes_is_predicted_as_along_its_own(predicted):
    kit, out, *_ = predicted
    if kit.host == "yolo":
        pytest.skip("it predicts pictures")
    own: Any = nib.load(out / "Scan0.nii.gz")
    turned: Any = nib.load(out / "Turned.nii.gz")
    assert nib.aff2axcodes(turned.affine) == ("P", "I", "R")
    same = [nib.as_closest_canonical(each) for each in (own, turned)]
    assert np.allclose(same[0].affine, same[1].affine)
    assert np.array_equal(same[0].dataobj, same[1].dataobj)


def test_unsure_places_need_probabilities_and_a_label_that_is_ignored(trained, refuse, tmp_path):
    kit, images = trained[0], tmp_path / "new"
    kit.new_images(images)
    words = ("predict", kit.output, images, "--sure", 0.9, "-o", tmp_path / "predicted")
    says = {"yolo": "no probabilities", "deepmedic": "no probabilities"}
    refuse(*words, code=2, says=["--sure 0.9", says.get(kit.host, "none that is ignored")])


def test_the_ignore_label_is_written_where_nnunets_probabilities_are_unsure(
    trained, run_json, tmp_path
):
    kit, images = trained[0], tmp_path / "new"
    if kit.host != "nnunet":
        pytest.skip("tests/cli/test_unlabelled.py has the segmenter, which is the other that can")
    kit.new_images(images)
    for file in images.glob("Scan1*"):
        file.unlink()
    about = kit.output.parent / "dataset.json"
    document = json.loads(about.read_text())
    ignore = max(document["labels"].values()) + 1  # which has no channel in the network
    try:
        about.write_text(json.dumps(document | {"labels": document["labels"] | {"ignore": ignore}}))
        found = {}
        for sure in (None, 0.5, 0.6, 0.95):
            asked = () if sure is None else ("--sure", sure)
            words = ("predict", kit.output, images, *asked, "-o", tmp_path / f"{sure}")
            files = run_json(*words, "--device", "cpu")["files"]
            found[sure] = np.stack([np.asarray(read_volume(Path(file)).array) for file in files])
    finally:
        about.write_text(json.dumps(document))
    assert np.array_equal(found[0.5], found[None])
    unsure = [found[sure] == ignore for sure in (0.6, 0.95)]
    assert 0 < unsure[0].sum() < unsure[1].sum()
    assert not (unsure[0] & ~unsure[1]).any()
    assert np.array_equal(found[0.95][~unsure[1]], found[None][~unsure[1]])


def test_another_training_in_its_folder_is_refused(trained, refuse):
    (kit, bank, _), more = (
        trained,
        ("--ratio", "1:3", "--seed", "1", "--schedule", "anneal", "--dry-run"),
    )
    generator = ("--generator", kit.run, "--device", "cpu")
    for words, says in (
        (
            kit.training(bank, *more, epochs=1),
            ["ratio 1:1, not 1:3", "seed 0, not 1", "schedule constant, not anneal"],
        ),
        (kit.words(*kit.where, *generator, *kit.lasting(1)), ["bank existing"]),
    ):
        says = [f"{kit.output}: holds another training", *says, "take another folder: -"]
        refuse(*words, code=2, says=says, keep=[kit.output])


@pytest.mark.fault(36)
def test_a_second_training_in_the_same_place_is_told_who_is_there(trained, refuse):
    kit, bank, _ = trained
    with locked(kit.output, "go"):
        says = [f"{kit.output}: locked by pid {os.getpid()} since"]
        refuse(*kit.training(bank, epochs=1), code=4, says=says)


def test_real_cases_alone_need_no_generator_bank_or_producer(kit, run_json):
    said = run_json(*kit.words(*kit.where, *kit.lasting(1), ratio="1:0"))
    (session,) = kit.sessions()
    assert said["drawn_real"] == session["drawn"]["real"] > 0
    assert said["drawn_synthetic"] == said["fell_back"] == session["drawn"]["synthetic"] == 0
    assert (session["bank"], session["generator"]) == ("none", None)
    train = kit.intake().source.train_ids
    assert [case["id"] for case in session["lineage"]["cases"]] == sorted(train)
    assert real_cases(kit) <= set(train)
    assert not (kit.output / "gansynth_producer.log").exists()


@pytest.fixture(scope="module", params=HOSTS)
def continued(request, tmp_path_factory) -> Kit:
    """Synthetic samples only, then chosen cases only: stopped where one ends, and gone on with.

    No folder is named: the results lie where the host puts them.
    """
    kit = kit_of(request.param, tmp_path_factory.mktemp("continued"), request.getfixturevalue)
    words = unnamed(kit.training(kit.bank(), "--schedule", "finetune:30%@50%", ratio="0:1"))
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        patch.chdir(kit.folder)
        with patch.context() as cutting:
            kit.cut(cutting)
            assert command(*words).exit_code == 143
        (kit.output,) = (record.parent for record in kit.folder.rglob(kit.record))
        (session,) = kit.sessions()
        assert not session["complete"]
        planned = command(*words, "--dry-run", "--json")
        result = command(*words)
    assert result.exit_code == 0, result.stderr
    planned_state = f"resumes at {kit.unit} {kit.epochs // 2} of {kit.epochs}"
    assert json.loads(planned.stdout)["training"] == planned_state
    said = f"{kit.output}: the training {planned_state}"
    assert said.replace(f"{kit.folder}/", "") in result.stderr  # as seen from here
    assert [record.parent for record in kit.folder.rglob(kit.record)] == [kit.output]
    return kit


def unnamed(words: Sequence[str]) -> list[str]:
    """The same words without those that name a folder for results."""
    pairs = zip(["", *words], words, strict=False)
    named = ("-o", "--root")
    return [word for before, word in pairs if word not in named and before not in named]


@pytest.mark.fault(30)
def test_an_interrupted_training_goes_on_and_adds_to_its_record(continued):
    first, second = continued.sessions()
    half = continued.epochs // 2
    assert (first["epochs"], second["epochs"]) == ([0, half], [half, continued.epochs])
    assert second["complete"]


def test_a_schedule_changes_the_ratio_at_its_epoch_also_where_one_goes_on(continued):
    first, second = continued.sessions()
    assert (first["asked"], second["asked"]) == (1.0, 0.0)
    assert first["drawn"]["synthetic"] > 0
    assert first["drawn"]["real"] <= continued.ahead
    assert second["drawn"]["real"] > 0
    assert second["drawn"]["synthetic"] == 0
    source = continued.intake().source
    assert first["chosen"] == second["chosen"] != []
    assert set(second["chosen"]) < set(source.train_ids)
    assert real_cases(continued) <= set(second["chosen"])


def test_a_host_that_begins_elsewhere_than_at_its_checkpoint_trains_nothing(
    kit, refuse, monkeypatch
):
    look = Session.training_folder
    monkeypatch.setattr(Session, "training_folder", lambda self: replace(look(self), done=1))
    begins = [f"begins at {kit.unit} 0, expected {kit.unit} 1", "nothing overwritten"]
    refuse(*kit.training(kit.bank()), code=6, says=begins)
    assert kit.logs() == []


def real_cases(kit: Kit) -> set[str]:
    lines = [line.split(",")[:2] for log in kit.logs() for line in log.read_text().split()]
    real = {case for kind, case in lines if kind == "real"}
    if kit.host in ("deepmedic", "yolo"):  # these count cases by their index
        real = {kit.intake().source.train_ids[int(index)] for index in real}
    return real


@pytest.mark.fault(39)
def test_missing_samples_are_counted_and_end_the_training_with_5(kit, refuse, run_cli, one_line):
    dry = kit.bank("dry", samples=0, frozen=False)  # a live one that nobody fills
    refuse(*kit.training(dry), code=5, says=[str(dry), "holds no sample"])
    result = run_cli(*kit.training(dry, "--allow-empty-bank", "--json", epochs=1))
    (session,) = kit.sessions()
    drawn = session["drawn"]
    half = drawn["real"] // 2
    says = ["results are kept", f"{half} of {half} synthetic samples were missing (100.0%"]
    one_line(result.exit_code, result.stderr, 5, says)
    assert session["complete"]
    assert (drawn["synthetic"], drawn["fell_back"]) == (0, half)
    assert drawn["reasons"] == {"the bank is empty": half}
    assert json.loads(result.stdout)["fell_back"] == half


@pytest.mark.fault(39)
def test_strict_stops_at_the_first_missing_sample(kit, run_cli, one_line):
    dry = kit.bank("dry", samples=0, frozen=False)
    result = run_cli(*kit.training(dry, "--allow-empty-bank", "--strict"))
    one_line(result.exit_code, result.stderr, 5, ["no synthetic sample", "strict is set"])
    assert not kit.sessions()[-1]["complete"]


def producer_of(kit: Kit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kit.output / "gansynth_producer.json").read_text())
    return found


def unlocked(folder: Path) -> bool:
    with locked(folder, "take another"):
        return True


def test_a_training_that_does_not_begin_leaves_nobody_and_is_in_nobodys_way(
    kit, run_cli, monkeypatch
):
    def wait(*_: object) -> None:
        raise KeyboardInterrupt

    words = (*kit.where, "--generator", kit.run, "--device", "cpu", *kit.lasting())
    with monkeypatch.context() as patch:
        patch.setattr(TrainingBank, "wait", wait)
        assert run_cli(*kit.words(*words)).exit_code == 130
    assert not Path(producer_of(kit)["bank"]).exists()
    assert family(kit.output) == []
    assert unlocked(kit.output)
    assert (kit.output / kit.record).exists()
    planned = run_cli(*kit.words(*words, "--dry-run", "--json", ratio="1:3"))
    assert json.loads(planned.stdout)["training"].startswith("starts over")


@pytest.mark.slow
def test_a_generator_at_work_feeds_a_training_at_the_ratio(kit, run_json, monkeypatch):
    in_this_process(monkeypatch)
    asked = (*kit.where, "--generator", kit.run, "--device", "cpu", "--bank-size", 8)
    said = run_json(*kit.words(*asked, *kit.lasting(4)))
    assert said["drawn_real"] == said["drawn_synthetic"] > 0
    assert said["fell_back"] == 0
    (session,) = kit.sessions()
    assert session["complete"]
    assert session["bank"] == "filled by a producer"
    assert session["generator"]["manifest_sha256"] == RunFolder(kit.run).manifest_sha256
    evenly = math.ceil(said["drawn_synthetic"] / 8)  # a training begins before the bank is full
    assert session["drawn"]["most_draws"] <= 2 * evenly
    assert family(kit.folder) == []


@pytest.mark.fault(29, 30)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, 5)],
    ids=["kill", "term", "int", "kill-trainer"],
)
def test_nobody_and_no_bank_is_left_of_a_training_that_is_ended(kit, number, code):
    """The last one: only the process that trains is killed, as by a machine without memory."""
    asked = (*kit.where, "--generator", kit.run, "--device", "cpu", "--bank-size", 8)
    words = [sys.executable, "-m", "gansynth_cli", *kit.words(*asked, *kit.lasting(10_000))]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1"}
    said = kit.folder / "said"
    with said.open("w") as log, subprocess.Popen(words, stdout=log, stderr=log, env=environ) as run:
        try:
            until(lambda: run.poll() is not None or begun(kit))
            assert run.poll() is None, said.read_text()
            bank = Path(producer_of(kit)["bank"])
            assert bank.exists()
            children = psutil.Process(run.pid).children(recursive=True)
            assert children
            trainer = [one for one in children if TRAINING_PROCESS in one.cmdline()][:1]
            if code == 5 and not trainer:
                pytest.skip("the command itself trains")
            (trainer[0] if code == 5 else run).send_signal(number)
            assert run.wait(120) == code
        finally:
            run.kill()
    until(lambda: all(map(gone, children)) and family(kit.folder) == [])
    until(lambda: not bank.exists())
    assert unlocked(kit.output)
    assert not kit.sessions()[-1]["complete"]
    if kit.host != "nnunet":  # whose own threads cry out
        assert "Traceback" not in said.read_text()


def begun(kit: Kit) -> bool:
    """Whether an epoch has ended and its record is there."""
    return (kit.output / kit.record).exists() and any(one["epochs"][1] for one in kit.sessions())
