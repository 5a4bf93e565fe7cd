"""NnunetAdapter: what it promises the core, what it refuses, and the child process it runs."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.placement import place_bank, plan_bank, remove_banks_of
from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankSize
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Sample
from gansynth.core.space import Space
from gansynth.runtime import processes, torchvision_compat
from gansynth.runtime.child import cpu_threads
from gansynth.runtime.errors import (
    DataFault,
    GansynthError,
    IntegrityFault,
    TrainingFault,
    UsageFault,
)
from gansynth.runtime.files import write_json_atomic
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.guards import check_size, sample_bytes
from gansynth_nnunet.launch import parse_options
from gansynth_nnunet.session import SIDECAR, describe_session, read_outcome
from gansynth_nnunet.source import open_nnunet
from tests.processes import until

QUICK = {
    "num_epochs": "1",
    "num_iterations_per_epoch": "2",
    "num_val_iterations_per_epoch": "1",
}


@pytest.fixture
def adapter(toy_nnunet):
    return NnunetAdapter(open_nnunet(toy_nnunet.request()))


def injection(bank: Path, ratio: str = "1:1", **rest: Any) -> Injection:
    return Injection(RunFolder(bank / "no-run"), Ratio.parse(ratio), bank=bank, **rest)


# -- the contract --------------------------------------------------------------------------------


def test_a_sample_is_at_least_a_patch(adapter):
    assert adapter.sample_size == adapter.host.patch_size


def test_in_2d_a_sample_is_one_slice(toy_nnunet):
    adapter = NnunetAdapter(open_nnunet(toy_nnunet.request(configuration="2d")))
    assert adapter.sample_size == (1, *adapter.host.patch_size)


def test_a_finalised_sample_names_the_voxels_of_each_label(adapter):
    case = adapter.source.load(adapter.source.train_ids[0])
    arrays = adapter.finalise(Sample(case.image, case.labels))
    assert sorted(arrays) == ["class_locations:1", "class_locations:2"]
    assert all(a.dtype == np.int16 and a.shape[1] == 4 for a in arrays.values())


def test_a_sample_without_labels_is_refused(adapter):
    with pytest.raises(DataFault, match="no labels"):
        adapter.finalise(Sample(np.zeros((2, 8, 8, 8), np.float32)))


def test_a_source_of_another_kind_is_refused(adapter, monkeypatch):
    from gansynth.core.source import CaseSource

    monkeypatch.setattr(CaseSource, "__abstractmethods__", frozenset())
    other: Any = CaseSource()  # type: ignore[abstract]
    other.request = adapter.source.request
    with pytest.raises(UsageFault, match="expected nnunet:ID"):
        NnunetAdapter(other)


def test_it_mixes_into_a_data_set_one_builds_oneself(adapter, frozen_bank):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    real = nnUNetDatasetBlosc2(str(adapter.host.folder), list(adapter.source.train_ids))
    mixed = adapter.inject(real, MixPlan(frozen_bank(), Ratio(0, 1)), batch_size=2)
    *_, properties = mixed.load_case(real.identifiers[0])
    assert set(properties["class_locations"]) == {1, 2}


# -- refusing before anything starts -------------------------------------------------------------


def test_a_bank_of_another_fold_starts_nothing(adapter, frozen_bank):
    with pytest.raises(IntegrityFault, match="leakage: the bank"):
        adapter.start(injection(frozen_bank(fold="1")), QUICK, ())
    assert not adapter.output_folder.exists()


def test_a_run_that_is_none_starts_nothing(adapter, tmp_path):
    with pytest.raises(DataFault, match="no manifest"):
        adapter.start(Injection(RunFolder(tmp_path), Ratio.parse("1:1")), QUICK, ())
    assert not adapter.output_folder.exists()


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"num_epoch": "3"}, (), "--set num_epoch=3: nnunet has no such setting"),
        ({"num_epochs": "1.5"}, (), "--set num_epochs=1.5: expected a whole number"),
        ({"oversample_foreground_percent": "33"}, (), "expected a number less than or equal to 1"),
        ({}, ("--epochs", "3"), "unrecognized arguments: --epochs 3"),
        ({}, ("--c", "--val"), "exclude each other"),
        ({}, ("-device", "tpu"), "tpu"),
    ],
)
def test_what_nnunet_would_not_understand_is_refused(
    adapter, frozen_bank, settings, options, message
):
    with pytest.raises(UsageFault) as caught:
        adapter.start(injection(frozen_bank()), settings, options)
    assert message in str(caught.value)


def test_missing_preprocessing_is_named(toy_copy):
    (toy_copy.preprocessed / "dataset_fingerprint.json").unlink()
    with pytest.raises(DataFault, match=r"dataset_fingerprint\.json: missing.*gansynth prepare"):
        NnunetAdapter(open_nnunet(toy_copy.request())).validate()


@pytest.mark.parametrize(
    ("space", "patch", "fits"),
    [
        (Space("crop", (32, 32, 32)), (24, 24, 32), True),
        (Space("crop", (32, 32, 24)), (24, 24, 32), False),
        (Space("slice", (32, 32)), (32, 24), True),
        (Space("slice", (32, 32)), (24, 24, 24), False),
        (Space("native"), (24, 24, 24), True),
        (Space("resample", (64, 64, 64)), (24, 24, 24), False),
    ],
)
def test_samples_smaller_than_a_patch_are_refused(space, patch, fits):
    if fits:
        check_size(Path("run"), space, patch)
        return
    with pytest.raises(UsageFault):
        check_size(Path("run"), space, patch)


# -- the outcome ---------------------------------------------------------------------------------


def finished(folder: Path, *drawn: tuple[int, int, int], **rest: Any) -> None:
    """What a training of some sessions leaves behind: real, synthetic, fell back of each."""
    sessions = [
        {
            "drawn": {
                **dict(zip(("real", "synthetic", "fell_back"), counts, strict=True)),
                "distinct_synthetic": counts[1] // 2,
                "reasons": {"the bank is empty": counts[2]},
            },
            **rest,
        }
        for counts in drawn
    ]
    (folder / "validation").mkdir(parents=True)
    (folder / "gansynth.json").write_text(json.dumps({"sessions": sessions}))
    summary = {
        "foreground_mean": {"Dice": 0.8},
        "mean": {"1": {"Dice": 0.8}, "2": {"Dice": float("nan")}},
    }
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))


def test_an_outcome_sums_all_sessions_and_holds_nnunets_dice(tmp_path):
    finished(tmp_path, (30, 10, 0), (30, 10, 0))
    outcome = read_outcome(tmp_path)
    assert (outcome.drawn_real, outcome.drawn_synthetic, outcome.realised) == (60, 20, 0.25)
    own = {"dice": 0.8, "dice_per_label": {"1": 0.8, "2": None}}
    assert outcome.metrics == {"nnunet_validation": own}


def test_missing_samples_are_reported_with_the_reason_for_others_to_judge(tmp_path):
    finished(tmp_path, (102, 98, 2), (102, 98, 2))
    outcome = read_outcome(tmp_path)
    assert (outcome.fell_back, dict(outcome.reasons)) == (4, {"the bank is empty": 4})


def test_an_outcome_says_what_the_producers_of_all_sessions_did(tmp_path):
    supply = {"restarts": 1, "overhead": 0.01, "refresh_seconds": 40.0, "ended": "killed"}
    finished(tmp_path, (10, 10, 0), (0, 60, 0), asked=0.75, supply=supply, changes=["edits"])
    outcome = read_outcome(tmp_path)
    assert outcome.supply == {
        "draws_per_sample": 2.0,
        "refresh_seconds": 40.0,
        "overhead": 0.01,
        "restarts": 2,
        "ended": "killed",
    }
    assert (outcome.asked, outcome.warnings) == (0.75, ("edits", "edits"))


def test_a_record_without_what_is_new_in_it_still_has_an_outcome(tmp_path):
    finished(tmp_path, (3, 3, 0))
    assert read_outcome(tmp_path).asked is None


# -- the room a bank takes -------------------------------------------------------------------------


def test_the_room_of_a_bank_is_known_before(adapter, fitted):
    planned = adapter.bank_plan(
        Injection(RunFolder(fitted), Ratio(1, 1), size=BankSize(samples=10))
    )
    one = sample_bytes(tuple(adapter.source.space.size), adapter.sample_size, 2, 2, 4)
    assert planned is not None
    assert planned.bytes == one * (10 + 4 * 5)


def test_a_bank_without_room_for_two_samples_is_refused(adapter, fitted):
    tiny = Injection(RunFolder(fitted), Ratio(1, 1), size=BankSize(bytes=1000))
    with pytest.raises(UsageFault, match=r"--bank-size 1000B: holds 0 sample"):
        adapter.check(tiny, {}, ())


@pytest.mark.parametrize(("frozen", "held"), [(True, 1), (False, 2)])
def test_a_live_bank_holds_two_samples_at_least(tmp_path, frozen, held):
    one = Injection(RunFolder(tmp_path), Ratio(1, 1), frozen=frozen, size=BankSize(samples=1))
    assert plan_bank(one, 4, 1000).held == held


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"schedule": Schedule.parse("anneal")}, UsageFault),
        ({"ratio": Ratio(1, 3)}, None),
    ],
)
def test_what_cannot_be_continued_is_refused_before_anything_starts(
    toy_copy, frozen_bank, changes, fault
):
    adapter = NnunetAdapter(open_nnunet(toy_copy.request()))
    first = injection(frozen_bank())
    described = describe_session(adapter._config(first, {}), adapter._check(first))
    adapter.output_folder.mkdir(parents=True)
    sessions = [{"epochs": [0, 1], **described, "of_epochs": None, "changes": []}]
    write_json_atomic(adapter.output_folder / SIDECAR, {"complete": False, "sessions": sessions})
    (adapter.output_folder / "checkpoint_latest.pth").touch()
    now = replace(first, **changes)
    adapter.check(now, {}, ())
    if fault is None:
        adapter.check(now, {}, ("--c",))
        return
    with pytest.raises(fault, match="start anew without --c"):
        adapter.check(now, {}, ("--c",))


# -- the child process ---------------------------------------------------------------------------


def run(code: str, log: Path) -> processes.Ended:
    return processes.run([sys.executable, "-c", code], os.environ, log)


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6])
def test_a_childs_typed_fault_is_ours(tmp_path, code):
    ended = run(
        f"import sys; sys.stderr.write('what and why\\n'); sys.exit({code})", tmp_path / "l"
    )
    with pytest.raises(GansynthError, match=r"^what and why$") as caught:
        processes.raise_if_failed(ended, "training")
    assert caught.value.exit_code == code


def test_a_childs_fault_is_found_though_its_threads_go_on_talking(tmp_path):
    code = (
        "import sys; sys.stderr.write('error: why\\nTraceback\\nRuntimeError: x\\n'); sys.exit(5)"
    )
    with pytest.raises(TrainingFault, match=r"^why$"):
        processes.raise_if_failed(run(code, tmp_path / "log"), "training")


@pytest.mark.parametrize(
    ("code", "shown"), [(5, ["one"]), (1, ["one", "two"]), (0, ["one", "two"])]
)
def test_what_a_child_ended_with_is_left_to_us_to_say(tmp_path, capsys, code, shown):
    said = "error: one\\nworking\\nerror: two\\nstill working\\n"
    ended = run(f"import sys; sys.stderr.write('{said}'); sys.exit({code})", tmp_path / "log")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error")] == [f"error: {s}" for s in shown]
    assert "still working" in lines
    assert "error: two" in (tmp_path / "log").read_text().splitlines()
    if code == 5:
        with pytest.raises(TrainingFault, match=r"^two$"):
            processes.raise_if_failed(ended, "training")


def test_any_other_failure_quotes_the_last_line(tmp_path):
    ended = run("print('x'); raise RuntimeError('shape mismatch')", tmp_path / "log")
    with pytest.raises(TrainingFault, match=r"failed \(exit 1\): RuntimeError: shape mismatch"):
        processes.raise_if_failed(ended, "training")


def test_a_killed_child_is_not_waited_for_by_its_workers(tmp_path):
    code = (
        "import os, signal, subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']);"
        "print(p.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = run(code, tmp_path / "log")
    with pytest.raises(TrainingFault, match="signal SIGKILL"):
        processes.raise_if_failed(ended, "training")
    until(lambda: not Path(f"/proc/{int(ended.last[0])}/exe").exists())


def test_what_a_killed_child_left_in_memory_is_removed():
    folder, _ = place_bank("toy", 0)
    remove_banks_of(os.getpid() + 1)
    assert folder.exists()
    remove_banks_of(os.getpid())
    assert not folder.exists()


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_reaches_the_child_and_ends_us_too(tmp_path, number, expected):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from gansynth.runtime import processes\n"
        "code = 'import time; print(1, flush=True); time.sleep(60)'\n"
        "ended = processes.run([sys.executable, '-c', code], os.environ, Path(sys.argv[1]))\n"
        "try:\n"
        "    processes.raise_if_failed(ended, 'training')\n"
        "except BaseException as error:\n"
        "    print(type(error).__name__, getattr(error, 'code', ''), ended.code)\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, str(script), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        until(lambda: log.exists() and log.read_text() != "")
        parent.send_signal(number)
        said = parent.communicate(timeout=60)[0].split()
    assert said[0] == expected.__name__
    assert said[-1] in (f"-{number.value}", "1")
    if number == signal.SIGTERM:
        assert said[1] == "143"


def test_everything_a_child_says_is_kept(tmp_path):
    run("print('one'); print('two')", tmp_path / "log")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


# -- the environment -----------------------------------------------------------------------------


def test_threads_follow_the_users_wish(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3


def test_without_a_wish_one_core_is_left_over(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cpu_threads() == 7


def test_nnunets_own_options_pass():
    given = parse_options(["--npz", "--c", "-num_gpus", "2"])
    assert (given.npz, given.c, given.num_gpus, given.device) == (True, True, 2, "auto")


def test_torchvision_imports_with_the_folder_for_a_cpu_torch_on_the_path():
    environ = {**os.environ, "PYTHONPATH": str(torchvision_compat.CPU_TORCH)}
    code = "import sys; assert 'torch' not in sys.modules; import torchvision.ops"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_that_folder_lets_another_sitecustomize_run(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.seen = True")
    path = os.pathsep.join((str(torchvision_compat.CPU_TORCH), str(tmp_path)))
    command = [sys.executable, "-c", "import sys; assert sys.seen"]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode == 0


# -- all of it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_training_through_the_adapter(toy_copy, frozen_bank):
    adapter = NnunetAdapter(open_nnunet(toy_copy.request()))
    settings = {**QUICK, "regions": "both:1+2"}
    mixing = injection(frozen_bank(), samples=SampleRequest(1))
    outcome = adapter.start(mixing, settings, ("-device", "cpu"))
    assert outcome.realised == 0.5
    assert 0 <= outcome.metrics["dice"]["both"] <= 1
    assert outcome.metrics["hd95"]["both"] > 0
    assert outcome.metrics["unit"] == "mm"
    assert (outcome.folder / "checkpoint_final.pth").exists()
    assert "Training done." in (outcome.folder / "gansynth_launch.log").read_text()
