import json
import pickle
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.bank.draw_log import DrawCounter
from gansynth.core.schedule import choose_cases
from gansynth.core.source import lineage_of
from gansynth.core.volumes import read_volume
from gansynth.hosts.contract.record import TrainingResult
from gansynth.runtime import torchvision_compat
from gansynth.runtime.child import SHOWN_PREFIX, SHOWS, cpu_threads, torch_threads
from gansynth.runtime.errors import EnvironmentFault, GansynthError, IntegrityFault
from gansynth.runtime.files import read_json
from gansynth_nnunet import launch
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER
from gansynth_nnunet.mixed import MixedNnunetDataset
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.trainer import DRAWS
from tests.adapters.nnunet.conftest import begin, log_of, run_stock
from tests.banks import write_bank
from tests.disks import files_of_at_most
from tests.expected import raises_fault
from tests.house import ROOT

# nnU-Net, timm and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def empty(toy_nnunet, tmp_path) -> Path:
    """A live bank that nobody fills."""
    source = NnunetSource(toy_nnunet.request(configuration="2d"))
    return write_bank(tmp_path / "empty", source.schema, lineage_of(source), frozen=False)


def test_training_stops_where_a_sample_is_missing_and_says_why_though_a_worker_knows_only(
    build, told, empty, monkeypatch
):
    told(bank=empty, allow_empty_bank=True, strict=True)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    with raises_fault("hosts.drawing-worker-stopped-training"):
        build("2d").run_training()


def test_with_fold_all_the_log_says_that_nothing_is_held_out(build, told, frozen_bank):
    told(bank=frozen_bank(fold="all"))
    trainer = build(fold="all")
    trainer.initialize()
    trainer.run_training()
    assert "nothing is held out" in log_of(trainer)


def test_a_trainer_without_a_mix_or_of_no_variant_is_refused(build):
    trainer = build()  # for inference, say
    with raises_fault("nnunet.synthetic-samples-not-configured"):
        trainer.run_training()
    with raises_fault("nnunet.trainer-unknown", names="'nnUNetTrainerDA"):  # one of these is meant
        build(name="nnUNetTrainerDA6GANSynth")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of the user's own trainers beside ours: own("class Mine(nnUNetTrainer): ...")."""
    folder = tmp_path / "trainers"

    def write(code: str) -> None:
        folder.mkdir()
        head = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        (folder / "users_trainers.py").write_text(head + code)
        monkeypatch.setenv("nnUNet_extTrainer", f"{EXT_TRAINER}:{folder}")

    return write


def base(trainer: Any) -> str:
    return str(type(trainer).__mro__[2].__name__)


MIRRORED = {"inference_allowed_mirroring_axes": (0, 1)}


@pytest.mark.parametrize(
    ("variant", "configuration", "settings", "stays"),
    [
        ("nnUNetTrainer", "3d_fullres", {}, {}),
        ("nnUNetTrainer", "2d", {}, {}),
        ("nnUNetTrainer_5epochs", "3d_fullres", {"num_epochs": 7, "initial_lr": 0.5}, {}),
        ("nnUNetTrainer_onlyMirror01_DA5", "3d_fullres", {}, MIRRORED),
    ],
)
def test_a_variant_draws_from_the_bank_and_stays_what_it_is_but_for_settings(
    ready, variant, configuration, settings, stays
):
    trainer = ready(configuration, f"{variant}GANSynth", sample_timeout=7, settings=settings)
    assert base(trainer) == variant
    assert f"{variant}GANSynth__" in trainer.output_folder
    train, validation = begin(trainer).get_dataloaders()
    loaded = [next(train) for _ in range(3)]
    batches = [batch["data"] for batch in loaded]
    patch = trainer.configuration_manager.patch_size
    assert trainer.gansynth_plan.sample_timeout == 7
    assert all(tuple(data.shape) == (2, 2, *patch) for data in batches)
    assert all(data.isfinite().all() for data in batches)
    drawn = Counter(kind for batch in loaded for kind, *_ in batch[DRAWS])
    assert drawn == {"real": 3, "synthetic": 3}
    assert not isinstance(validation.data_loader._data, MixedNnunetDataset)
    assert (next(validation)["target"][0] >= 0).all()
    expected = {**settings, **stays}
    assert {name: getattr(trainer, name) for name in expected} == expected


def test_a_users_own_trainer_is_composed_unless_the_user_did(ready, own):
    own(
        "from gansynth_nnunet.trainer import GANSynthMixin\n"
        "class Mine(nnUNetTrainer):\n    batches = 7\n"
        "class OtherGANSynth(GANSynthMixin, nnUNetTrainer):\n    by_hand = True\n"
    )
    trainer = ready(name="MineGANSynth")
    assert (base(trainer), trainer.batches) == ("Mine", 7)
    assert isinstance(begin(trainer).get_tr_and_val_datasets()[0], MixedNnunetDataset)
    assert ready(name="OtherGANSynth").by_hand


def test_a_composed_class_is_found_again_where_nobody_has_composed_it(monkeypatch):
    from gansynth_nnunet import trainer

    text = pickle.dumps(trainer.nnUNetTrainerDA5GANSynth)
    assert pickle.loads(text) is trainer.nnUNetTrainerDA5GANSynth
    assert not hasattr(trainer, "nnUNetTrainerDA5")
    monkeypatch.setattr(trainer, "_composed", {})  # as in another process
    assert pickle.loads(text).__mro__[2].__name__ == "nnUNetTrainerDA5"


@pytest.mark.parametrize(
    ("code", "mix"),
    [
        ("    def get_dataloaders(self):\n        return None, None\n", {}),
        (
            "    def get_training_transforms(self, *a, **k):\n        raise OSError\n"
            "    def get_dataloaders(self):\n"
            "        return self.get_tr_and_val_datasets()\n",
            {"augment_synthetic": False},
        ),
    ],
    ids=["samples", "augmentation"],
)
def test_loaders_that_samples_or_augmentation_do_not_reach_are_refused(ready, own, code, mix):
    own(f"class Mine(nnUNetTrainer):\n{code}")
    trainer = ready(name="MineGANSynth", **mix)
    with raises_fault("nnunet.trainer-makes-own-loaders"):
        begin(trainer).get_dataloaders()


@pytest.fixture
def trainer(ready):
    """One that could go on training; nothing has been saved yet."""
    made = ready()
    for key in ("mean_fg_dice", "ema_fg_dice", "train_losses"):
        made.logger.log(key, np.float32(0.5), 0)
    return made


def checkpoint(trainer: Any) -> Path:
    return Path(trainer.output_folder) / "checkpoint_latest.pth"


def test_a_checkpoint_carries_the_variants_name_and_training_goes_on_from_it(trainer, build):
    for name, value in (("disable_checkpointing", True), ("local_rank", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, name, value)
            trainer.save_checkpoint(str(checkpoint(trainer)))
        assert not checkpoint(trainer).exists()
    trainer.current_epoch = 4
    trainer.save_checkpoint(str(checkpoint(trainer)))
    saved = torch.load(checkpoint(trainer), map_location="cpu", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    assert type(trainer).__name__ == TRAINER
    assert list(checkpoint(trainer).parent.glob(".checkpoint*")) == []
    again = build()
    again.load_checkpoint(str(checkpoint(trainer)))
    assert again.current_epoch == 5
    assert again.output_folder == trainer.output_folder
    mine, theirs = trainer.network.state_dict(), again.network.state_dict()
    assert all((mine[key] == theirs[key]).all() for key in mine)


@pytest.mark.slow
def test_a_quick_validation_leaves_what_nnunets_own_would_without_mirroring(ready, monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    trainer = ready(settings={"quick_validation": True})
    trainer.inference_allowed_mirroring_axes = (0, 1, 2)
    trainer.perform_actual_validation()
    folder = Path(trainer.output_folder) / "validation"
    quick = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(folder)
    trainer.quick_validation = False
    trainer.inference_allowed_mirroring_axes = None
    trainer.perform_actual_validation()
    own = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert json.loads(quick.pop("summary.json")) == json.loads(own.pop("summary.json"))
    assert quick == own


@pytest.mark.slow
def test_something_is_shown_from_the_last_epoch_to_the_summary(ready, monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    trainer, shown = ready(), []
    summary = Path(trainer.output_folder) / "validation" / "summary.json"

    def note(unit, done, total):
        shown.append((unit, done, total, summary.exists()))

    monkeypatch.setattr("gansynth_nnunet.trainer.show", note)
    trainer.on_train_end()
    assert shown == [("predict held-out case", 0, 2, False)]
    trainer.perform_actual_validation()
    assert shown[-3:] == [
        ("predict held-out case", 2, 2, False),
        ("nnU-Net's own evaluation", 0, 1, False),
        ("nnU-Net's own evaluation", 1, 1, True),
    ]


def test_a_trainer_with_a_network_of_its_own_keeps_its_own_name():
    from gansynth_nnunet.trainer import GANSynthMixin, stock_name

    build = "build_network_architecture"
    host = type("Host", (), {build: lambda: 1})
    same = type("Same", (GANSynthMixin, host), {})
    other = type("Other", (GANSynthMixin, host), {build: lambda: 2})
    assert (stock_name(same), stock_name(other)) == ("Host", "Other")


@pytest.mark.fault(28, 31)
def test_a_disk_that_is_full_leaves_the_checkpoint_before(trainer):
    trainer.save_checkpoint(str(checkpoint(trainer)))
    before = checkpoint(trainer).read_bytes()
    says = "checkpoint_latest.pth: cannot be written: the file is larger than the system allows"
    with files_of_at_most(1000), pytest.raises(EnvironmentFault, match=says):
        trainer.save_checkpoint(str(checkpoint(trainer)))
    assert checkpoint(trainer).read_bytes() == before
    assert type(trainer).__name__ == TRAINER


def epochs(number: int, iterations: int = 2) -> dict[str, int]:
    values = {"num_epochs": number, "num_iterations_per_epoch": iterations}
    return {**values, "num_val_iterations_per_epoch": 1}


def trained(trainer: Any) -> tuple[dict[str, Any], tuple[float, ...]]:
    """The weights in the end, and what is drawn next; from the same random state."""
    for key, value in {**epochs(2), "save_every": 50}.items():
        setattr(trainer, key, value)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - what nnU-Net draws from
    torch.manual_seed(1)
    with torch_threads(cpu_threads()):  # ours does so by itself; nnU-Net's takes all cores
        trainer.run_training()
    weights = {name: value.numpy() for name, value in trainer.network.state_dict().items()}
    return weights, (random.random(), float(np.random.random()), float(torch.rand(1)))  # noqa: NPY002


@pytest.mark.fault(39)
def test_an_empty_bank_changes_no_bit_and_that_is_said(build, told, empty):
    stock = trained(build("2d", name="nnUNetTrainer"))
    told(bank=empty, allow_empty_bank=True)
    ours = build("2d")
    weights, drawn_next = trained(ours)
    assert drawn_next == stock[1]
    assert all(np.array_equal(weights[name], stock[0][name]) for name in weights)
    assert "WARNING: there is no synthetic sample" in log_of(ours)
    folder, real = Path(ours.output_folder), 4 * ours.batch_size
    result = TrainingResult.of(TrainingResult.sessions_in(folder), folder)
    drawn = (result.drawn_real, result.drawn_synthetic, result.fell_back)
    assert drawn == (real, 0, real // 2)
    assert "holds no sample" in result.training_bank["ended"]


TUNING = {"ratio": "0:1", "schedule": "finetune:34%@50%"}


def test_fine_tuning_goes_through_nnunets_rates_again_and_each_step_is_timed(ready):
    trainer, rates = ready(**TUNING, settings=epochs(10)), []
    for epoch in range(10):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[5] == rates[0] == trainer.initial_lr
    assert rates[:5] == rates[5:] == sorted(rates[:5], reverse=True)
    assert rates[4] == pytest.approx(trainer.initial_lr * 0.2**0.9)
    train, _ = begin(trainer).get_dataloaders()
    seen: list[tuple[float, float]] = []
    trainer.session.log_step = lambda *times: seen.append(times)
    began = time.monotonic()
    trainer.train_step(next(train))
    ((started, ended),) = seen
    assert began <= started < ended <= time.monotonic()


def test_fine_tuning_opens_the_chosen_cases_only_and_nothing_before(ready, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    load, seen = nnUNetDatasetBlosc2.load_case, Counter[str]()

    def logged(self: Any, identifier: str) -> Any:
        seen[identifier] += 1
        return load(self, identifier)

    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", logged)
    trainer = ready(settings=epochs(2, 4), **TUNING)
    trainer.run_training()
    train, validation = map(set, trainer.do_split())
    chosen = set(choose_cases({case: case for case in train}, 0.34, 0))
    assert len(chosen) == 2 < len(train)
    assert set(seen) - validation == chosen
    drawn = DrawCounter(trainer.gansynth_plan.log).update()
    assert sum(seen[case] for case in train) == drawn.real
    # Half of the batches, less the first one, which nnU-Net draws and does not train on.
    assert (drawn.real, drawn.synthetic) == (5 * trainer.batch_size, 3 * trainer.batch_size)


def test_where_nnunetv2_train_starts_it_a_trainer_goes_on_with_no_other_training(ready):
    first = begin(ready())
    first.session.close()
    other = ready(ratio="3:1")
    other.current_epoch = 1
    with raises_fault("hosts.folder-holds-other-training"):
        begin(other)


def test_the_parent_process_is_told_of_the_epoch_that_runs(ready, monkeypatch, capfd):
    first = ready(settings=epochs(3))
    first.num_epochs = 1  # as if it were cut off
    first.run_training()
    trainer = ready(settings=epochs(3))
    trainer.load_checkpoint(f"{first.output_folder}/checkpoint_final.pth")
    monkeypatch.setenv(SHOWS, "1")
    trainer.run_training()
    sent = [line.partition(SHOWN_PREFIX)[2] for line in capfd.readouterr().err.splitlines()]
    messages = [json.loads(text) for text in sent if text]
    begun, *_, last = [message for message in messages if message.get("unit") == "epoch"]
    assert begun == {"unit": "epoch", "done": 1.001, "total": 3}  # nothing drawn
    assert (last["done"], last["total"], last["synthetic"]) == (3, 3, "50%")
    logged = [trainer.logger.get_value(name, step=-1) for name in ("train_losses", "mean_fg_dice")]
    assert [last["loss"], last["Dice"]] == pytest.approx(logged)


def test_a_fault_that_a_rank_died_of_is_told_from_what_its_parent_says():
    try:
        raise IntegrityFault("test.fault", "leakage: of cases")
    except IntegrityFault:
        told = "\n\n-- Process 1 terminated with the following error:\n" + traceback.format_exc()
    fault = GansynthError.traced(told)
    assert (type(fault), str(fault)) == (IntegrityFault, "leakage: of cases")
    assert GansynthError.traced("ValueError: alone\n") is None


def test_a_killed_loader_worker_is_one_line_that_says_how_to_go_on(monkeypatch):
    def run_training(*words: object, **named: object) -> None:
        raise RuntimeError("One or more background workers are no longer alive. Exiting.")

    monkeypatch.setattr("nnunetv2.run.run_training.run_training", run_training)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    with raises_fault("nnunet.loading-process-ended"):
        launch.run(["Dataset004_X", "2d", "0", "-device", "cpu"])


def ids(log: Path, pid: int) -> list[str]:
    """Samples drawn by a process, in order."""
    rows = next(log.glob(f"draws-*-{pid}.csv")).read_text().splitlines()
    return [row.split(",")[1] for row in rows if row.startswith("synthetic")]


@pytest.mark.slow
def test_one_producer_serves_two_ranks_which_draw_differently(nnunet, told, fitted, tmp_path):
    told(generator=fitted, device="cpu", bank_size="12", offline=True, ratio="1:2")
    words = [sys.executable, "-m", "tests.adapters.nnunet.rank"]
    rest = [str(tmp_path), nnunet.dataset, nnunet.plans]
    ranks = [subprocess.Popen([*words, str(rank), *rest], cwd=ROOT) for rank in (0, 1)]
    try:
        assert [process.wait(300) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    first, second = (json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in (0, 1))
    bank, log, folder = map(Path, first["where"])
    assert first["where"] == second["where"]
    assert not bank.exists()
    assert (first["batch"], second["batch"]) == (2, 1)
    assert (first["leads"], second["leads"]) == (True, False)
    drawn = [ids(log, end["pid"]) for end in (first, second)]
    assert drawn[0][: len(drawn[1])] != drawn[1]
    record = json.loads((folder / "gansynth_session.json").read_text())
    assert record["complete"]
    counts = record["sessions"][0]["drawn"]
    assert counts["synthetic"] == sum(map(len, drawn))
    assert counts["real"] + counts["synthetic"] == 2 * (2 + 1)


PREDICT = """
import sys
sys.modules["gansynth"] = sys.modules["gansynth_nnunet"] = None  # any import of them fails
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
sys.argv[0] = "nnUNetv2_predict"
predict_entry_point()
"""


@pytest.mark.slow
def test_the_stock_command_trains_and_predicts_the_same_where_there_is_no_gansynth(
    nnunet, told, frozen_bank, tmp_path, monkeypatch
):
    told(bank=frozen_bank())
    train = Path(sys.executable).with_name("nnUNetv2_train")
    trained = ("-tr", TRAINER, "-p", nnunet.plans)
    path = str(torchvision_compat.CPU_TORCH)
    said = run_stock(train, "501", "3d_fullres", "0", *trained, PYTHONPATH=path)
    assert "Mean Validation Dice" in said
    results, images, out = (tmp_path / name for name in ("results", "in", "out"))
    record = read_json(next(results.rglob("gansynth_session.json")))
    assert record["complete"]
    assert record["sessions"][0]["drawn"]["realised"] == 0.5
    validated = sorted(next(results.rglob("validation")).glob("*.nii.gz"))
    images.mkdir()
    for file in validated:
        for channel in (nnunet.raw / "imagesTr").glob(file.name.replace(".", "_*.", 1)):
            (images / channel.name).symlink_to(channel)
    monkeypatch.delenv("nnUNet_extTrainer")
    predict = (sys.executable, "-c", PREDICT, "-i", images, "-o", out, "-npp", 0, "-nps", 0)
    run_stock(*predict, "-d", "501", "-c", "3d_fullres", "-f", "0", *trained)
    for file in validated:
        expected, found = read_volume(file).array, read_volume(out / file.name).array
        assert len(np.unique(expected)) > 1
        assert np.array_equal(found, expected)
