"""The process in DeepMedic's own Python, with a small program of our own in its place."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth_deepmedic import program
from gansynth_deepmedic.host import bridge
from gansynth_deepmedic.host.serving import PATIENCE, Serving
from gansynth_deepmedic.host.watching import (
    Centres,
    Heard,
    Saver,
    Session,
    core_as_weights,
    dice_of,
)
from tests.adapters.deepmedic.arrays import write_bank
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.adapters.deepmedic.orders import BRIGHT, Training, run, training

MODES = (-1, 0, 2)
HEAVY = (
    *("torch", "pydantic", "scipy", "yaml", "click", "pluggy", "rich", "filelock", "psutil"),
    *("safetensors", "pandas", "matplotlib", "tensorflow"),
)
BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
"""
VALUE, PLACE, SHIFT, CHANCE = 0, slice(2, 5), 5, -1
"""What the fake program writes of a segment: value at its centre, centre, augmentation, chance."""


def here(checkout: Path) -> program.Program:
    """A program that this Python runs."""
    return program.Program(checkout, Path(sys.executable), {})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return write_fake(tmp_path_factory.mktemp("fake") / "checkout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, checkout) -> Callable[[int], Training]:
    """A training of two epochs in one of the ways that DeepMedic samples; torch is blocked."""
    done: dict[int, Training] = {}

    def train(mode: int) -> Training:
        if mode not in done:
            folder = tmp_path_factory.mktemp(f"mode_{mode}")
            (folder / "blocked").mkdir()
            (folder / "blocked" / "sitecustomize.py").write_text(BLOCKER)
            made = training(
                folder / "toy", mode=mode, epochs=2, subepochs=2, val=1, checkout=checkout
            )
            environ = {**program.environ_of(here(checkout)), "PYTHONPATH": str(folder / "blocked")}
            ended = run(program.command(here(checkout), made.path), environ)
            assert ended.returncode == 0, ended.stderr
            done[mode] = made
        return done[mode]

    return train


@pytest.fixture
def fails(tmp_path, checkout) -> Callable[..., str]:
    """A training that must fail: its exit code, and the last line it says, which is returned."""

    def train(code: int, **asked: Any) -> str:
        made = training(tmp_path / "toy", checkout=checkout, **asked)
        ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
        assert ended.returncode == code, ended.stdout + ended.stderr
        said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert "Traceback" not in ended.stderr
        assert made.told("end") == []
        return said[0]

    return train


def fed(made: Training, kind: str = "train") -> list[list[float]]:
    """The segments that were trained on, in order."""
    file = made.toy.folder / "output" / "fed.jsonl"
    batches = [json.loads(line) for line in file.read_text().splitlines()]
    return [segment for batch in batches if batch["kind"] == kind for segment in batch["x"]]


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


# -- what is trained on ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_subepoch_has_the_ratio_in_cases_and_in_segments(trained, mode):
    made = trained(mode)
    jobs = made.told("job")
    found = Counter((job["subepoch"], job["kind"]) for job in jobs)
    wanted = {(k, kind): n for k in range(4) for kind, n in (("real", 2), ("synthetic", 4))}
    assert found == wanted
    assert sorted((job["subepoch"], job["place"]) for job in jobs) == [
        (k, place) for k in range(4) for place in range(6)
    ]
    assert {job["segments"] for job in jobs} == {10}
    segments = fed(made)
    for subepoch in range(4):
        of = segments[60 * subepoch :][:60]
        assert sum(segment[VALUE] >= BRIGHT for segment in of) == 40
    counts = summarise(made.log)
    assert (counts.real, counts.synthetic, counts.fell_back) == (8, 16, 0)


@pytest.mark.parametrize("mode", MODES)
def test_it_tells_what_happens(trained, mode):
    made = trained(mode)
    assert made.told("trained") == [0, 1, 2, 3]
    dice = {"dice": {"foreground": 0.5, "1": 0.25}}
    assert made.told("epoch") == [1, 1, 2, 2]
    assert made.told("metrics") == [{"loss": 0.5}, dice, {"loss": 0.5}, dice]
    assert made.told("end") == [dice]
    steps = made.told("step")
    assert len(steps) == 4 * 60 // 5
    assert all(begin <= end for begin, end in steps)
    assert all(before[0] <= after[0] for before, after in pairwise(steps))


def test_all_ways_of_sampling_train_on_the_same_segments(trained):
    first, second, third = (fed(trained(mode)) for mode in MODES)
    assert first == second == third


@pytest.mark.parametrize("mode", MODES)
def test_no_randomness_is_repeated(trained, mode):
    segments = fed(trained(mode))
    assert len({segment[CHANCE] for segment in segments}) == len(segments) == 240
    by_subepoch = [tuple(map(tuple, segments[60 * k :][:60])) for k in range(4)]
    assert len(set(by_subepoch)) == 4


def test_validation_is_left_alone_and_comes_to_the_same(trained):
    first, *others = (fed(trained(mode), "val") for mode in MODES)
    assert first
    assert all(segment[VALUE] < 100 for segment in first)
    assert all(other == first for other in others)


def test_nothing_is_written_into_the_checkout(checkout, trained):
    before = content(checkout)
    trained(-1)
    assert content(checkout) == before
    assert not list(checkout.rglob("__pycache__"))


def test_a_training_that_goes_on_draws_what_was_to_come(tmp_path, checkout, trained):
    made = training(
        *(tmp_path / "toy",),
        **{"epochs": 2, "subepochs": 2, "val": 1, "done": 1, "checkout": checkout},
        values={"TRAINED": 1},
    )
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    assert made.told("trained") == [2, 3]
    assert fed(made) == fed(trained(-1))[120:]


def test_a_network_that_was_trained_longer_than_known_is_said(tmp_path, checkout):
    """Cases are loaded as ordered, whatever number the configuration says."""
    values = {"TRAINED": 1, "numOfCasesLoadedPerSubepoch": 3}
    made = training(tmp_path / "toy", epochs=2, checkout=checkout, values=values)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    assert "has been trained for 1 epochs, the record says 0" in ended.stdout
    assert made.told("trained") == [3, 4, 5]
    assert len(made.told("job")) == 3 * 6


@pytest.mark.parametrize("augmented", [True, False])
def test_synthetic_cases_may_go_without_augmentation(tmp_path, checkout, augmented):
    made = training(
        *(tmp_path / "toy",),
        **{"subepochs": 1, "checkout": checkout, "augment_synthetic": augmented},
        values={"AUGMENT": {"hist_dist": True}},
    )
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    shifted = {segment[VALUE] >= BRIGHT: segment[SHIFT] != 0 for segment in fed(made)}
    assert shifted == {True: augmented, False: True}


@pytest.mark.parametrize("mode", [-1, 2])
def test_a_missing_sample_is_a_real_case_counted(tmp_path, checkout, mode):
    plan: MixPlan[int] = MixPlan(None, Ratio(1, 1), stream=(0,), log=tmp_path / "log")
    made = training(tmp_path / "toy", mode=mode, plan=plan, checkout=checkout)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    kinds = Counter(job["kind"] for job in made.told("job"))
    assert kinds == {"real": 9, "fallback": 9}
    assert summarise(tmp_path / "log").fell_back == 9
    assert all(segment[VALUE] < 100 for segment in fed(made))


@pytest.mark.parametrize("mode", [-1, 2])
def test_a_patch_too_small_for_a_segment_is_sampled_around_and_said(tmp_path, checkout, mode):
    """It lies at the volume's edge, and no segment fits there."""
    size = (2, 2, 2)
    told = {"case": "pat_00", "shape": [28, 32, 36], "placement": {"corner": [0, 0, 0]}}
    patch = Sample(np.full((2, *size), BRIGHT, np.float32), np.ones(size, np.int16), None, told)
    bank = write_bank(tmp_path / "small", [patch])
    plan: MixPlan[int] = MixPlan(bank, Ratio(1, 2), stream=(0,))
    made = training(tmp_path / "toy", mode=mode, plan=plan, roi=False, checkout=checkout)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    spread = {job["kind"]: job.get("spread", False) for job in made.told("job")}
    assert spread == {"synthetic": True, "real": False}
    assert {job["segments"] for job in made.told("job")} == {10}
    assert "taken from the whole case" in ended.stdout


@pytest.mark.parametrize(("processes", "patience"), [(-1, 300.0), (0, 300.0), (2, PATIENCE)])
def test_a_forked_process_gives_up_before_it_is_started_anew(tmp_path, processes, patience):
    plan: MixPlan[int] = MixPlan(None, Ratio(1, 1), patience=300.0)
    serving = Serving(training(tmp_path / "toy", plan=plan).order, Heard(sys.stdout))
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    serving.draw(lambda: None, training=True, processes=processes)
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    assert serving.subepochs.plan.patience == patience


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "code", "mode", "words"),
    [
        ("config", 2, 0, ["refuses its configuration", '"channelsTraining" needed']),
        ("assertion", 2, 0, ["AssertionError", 'assert sampling.FAIL != "assertion"']),
        ("training", 5, 0, ["KeyError: 'NaN'"]),
        ("loading", 5, 2, ["ValueError: could not broadcast"]),
        pytest.param(
            *("exit", 5, 0, ["ended itself (exit 1)", "Two weight maps were expected"]),
            marks=pytest.mark.slow,
        ),
        ("exit", 5, 2, ["ended itself (exit 1)", "Two weight maps were expected"]),
        ("final", 5, -1, ["without its final checkpoint", "none was written"]),
    ],
)
def test_a_failure_is_not_exit_0(fails, where, code, mode, words):
    said = fails(code, mode=mode, subepochs=1, val=1, values={"FAIL": where})
    assert [word for word in words if word not in said] == []


def test_arguments_that_it_does_not_know(fails):
    assert "not its arguments" in fails(2, arguments=("-fly", "high"))


@pytest.mark.parametrize("option", ["-test", "-train"])
def test_another_task(fails, option):
    assert option in fails(2, arguments=(option, "my.cfg"))


@pytest.mark.parametrize("mode", MODES)
def test_a_fault_of_ours_keeps_its_words(fails, tmp_path, mode):
    """Whatever the program makes of it; it may come from a forked process."""
    plan: MixPlan[int] = MixPlan(tmp_path / "nowhere", Ratio(0, 1), stream=(0,), patience=0.1)
    said = fails(5, mode=mode, plan=plan)
    assert "no synthetic sample after 0.1 s" in said
    assert "no real case may be drawn now" in said


def test_more_synthetic_cases_than_slots(fails):
    """The ratio is other than the one that slots were counted for."""
    plan: MixPlan[int] = MixPlan(None, Ratio(0, 1), stream=(0,))
    assert "more synthetic cases than the training lists have slots (6)" in fails(
        6, count=9, listed=6, segments=90, plan=plan
    )


def test_other_lists_than_ordered(fails):
    slots = ("/nowhere/synth/slot_0000/flair.nii.gz",)
    assert "10 training cases with" in (said := fails(6, slots=slots))
    assert "4 real ones and 1 slots as ordered" in said


def test_segments_that_do_not_come_out_even(fails):
    assert "= 61, expected a multiple of the 6 cases" in fails(6, segments=61)


def test_cases_of_one_kind_need_not_come_out_even(tmp_path, checkout):
    made = training(tmp_path / "toy", ratio="0:1", segments=61, checkout=checkout)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 0, ended.stderr
    jobs = made.told("job")
    assert {job["kind"] for job in jobs} == {"synthetic"}
    assert sum(job["segments"] for job in jobs) == 3 * 61


def test_another_number_of_subepochs(fails):
    assert "numberOfSubepochs = 3, expected 4" in fails(6, values={"numberOfSubepochs": 3},
                                                        subepochs=4)  # fmt: skip


def test_a_slot_among_the_validation_cases(tmp_path, checkout):
    made = training(tmp_path / "toy", val=2, checkout=checkout)
    for name in ("flair", "t1c", "labels", "roi"):
        file = made.toy.folder / f"validation_{name}.cfg"
        slot = Path(made.order.slots[3]).parent / f"{name}.nii.gz"
        file.write_text(file.read_text() + f"{slot}\n")
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 6, ended.stderr
    assert "a synthetic slot among the validation cases" in ended.stderr
    assert "slot_0003" in ended.stderr
    assert made.told("job") == []


def test_a_checkout_that_takes_other_arguments(tmp_path):
    checkout = write_fake(tmp_path / "checkout")
    file = checkout / "deepmedic" / "dataManagement" / "sampling.py"
    file.write_text(file.read_text().replace("num_parallel_proc", "workers"))
    made = training(tmp_path / "toy", checkout=checkout)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 4, ended.stderr
    assert "get_samples_for_subepoch takes no num_parallel_proc" in ended.stderr


def test_a_checkout_that_cannot_be_imported(tmp_path):
    checkout = write_fake(tmp_path / "checkout")
    (checkout / "deepmedic" / "routines" / "testing.py").write_text("import no_such_flow\n")
    made = training(tmp_path / "toy", checkout=checkout)
    ended = run(program.command(here(checkout), made.path), program.environ_of(here(checkout)))
    assert ended.returncode == 4, ended.stderr
    assert "No module named 'no_such_flow'" in ended.stderr


def test_it_is_told_which_order():
    ended = run([sys.executable, program.command(here(Path()), Path())[1]], {})
    assert (ended.returncode, ended.stderr[:13]) == (2, "error: usage:")


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path, checkout):
    """Starts a training that waits in the middle of its sampling, and yields its process."""
    started: list[subprocess.Popen[str]] = []

    def start(mode: int, parent: int | None = None) -> subprocess.Popen[str]:
        made = training(tmp_path / "toy", mode=mode, checkout=checkout, values={"FAIL": "waiting"})
        environ = {**os.environ, **program.environ_of(here(checkout)), "PYTHONUNBUFFERED": "1"}
        environ |= {} if parent is None else {"GANSYNTH_PARENT": str(parent)}
        child = subprocess.Popen(
            program.command(here(checkout), made.path),
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(child)
        assert child.stdout is not None
        for line in child.stdout:
            if line == "waiting\n":
                break
        return child

    yield start
    for child in started:
        assert child.stdout is not None
        child.stdout.close()
        with_it = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
        child.kill()
        for process in with_it:
            process.kill()
        child.wait()


@pytest.mark.parametrize(
    ("mode", "number", "code"),
    [
        (-1, signal.SIGTERM, 143),
        (0, signal.SIGINT, 130),
        (2, signal.SIGTERM, 143),
        pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_it_and_all_that_it_forked(waiting, mode, number, code):
    child = waiting(mode)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert bool(workers) == (mode > 0)
    child.send_signal(number)
    assert child.wait(timeout=60) == code
    assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.slow
def test_what_it_forked_ends_when_it_is_killed(waiting):
    child = waiting(2)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert len(workers) >= 2
    child.kill()
    child.wait()
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_it_ends_when_its_parent_has_gone(waiting):
    assert waiting(0, parent=2**22 + 1).wait(timeout=60) == 143


# -- centres of segments ---------------------------------------------------------------------------


class Uniform:
    """DeepMedic's uniform sampling: the region of interest itself, of any number."""

    def derive_sampling_maps_per_cat(self, weights, labels, roi, shape):
        assert weights is None
        return [roi, labels]

    def get_perc_to_sample_per_cat(self):
        return [1.0, 0.0]

    def get_n_sampling_cats(self):
        return 2


def edges(segment: Any, shape: Any) -> Any:
    mask = np.zeros(shape, np.int8)
    mask[tuple(slice(n // 2, m - n // 2) for n, m in zip(segment, shape, strict=True))] = 1
    return mask


def centres_of(core: Any) -> tuple[Any, Centres]:
    rng = np.random.default_rng(0)
    labels, roi = (rng.integers(0, 3, (9, 9, 9)).astype(np.uint8) for _ in range(2))
    centres = Centres(Uniform(), edges, (5, 5, 5))
    maps = centres.derive_sampling_maps_per_cat(core_as_weights(core), labels, roi, (9, 9, 9))
    wanted = [(roi > 0) & core, (labels > 0) & core] if not centres.spread else [roi, labels]
    for found, one in zip(maps, wanted, strict=True):
        np.testing.assert_array_equal(found, one)
    return maps, centres


def test_centres_lie_where_the_case_is_synthetic():
    core = np.zeros((9, 9, 9), bool)
    core[1:6, 2:7, 3:8] = True
    maps, centres = centres_of(core)
    assert not centres.spread
    assert centres.get_n_sampling_cats() == 2
    # DeepMedic multiplies by a mask of int8 in the map's own type.
    assert np.can_cast(np.int8, maps[0].dtype)


@pytest.mark.parametrize("where", [np.s_[0:2, 0:9, 0:9], np.s_[0:0, 0:0, 0:0]])
def test_a_core_without_a_whole_segment_is_left(where):
    """At the edge no segment fits; and a category of share 0 is never drawn."""
    core = np.zeros((9, 9, 9), bool)
    core[where] = True
    assert centres_of(core)[1].spread


# -- watching --------------------------------------------------------------------------------------


def test_only_runs_that_are_fed_are_steps():
    noted: list[tuple[float, ...]] = []
    original = SimpleNamespace(run=lambda fetches, feed_dict: [0.25, None], graph="graph")
    session = Session(original, lambda *step: noted.append(step))
    assert session.graph == "graph"
    session.run(["cost"])
    assert noted == []
    assert session.run(["cost"], {"x": 1}) == [0.25, None]
    ((begin, end, loss),) = noted
    assert begin <= end
    assert loss == 0.25


def test_a_checkpoint_is_noted_once_it_is_there():
    seen: list[str] = []
    original = SimpleNamespace(save=lambda session, path, **named: seen.append("saved"))
    Saver(original, seen.append).save(None, "path", write_meta_graph=False)
    assert seen == ["saved", "path"]


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ([], "it did not say why"),
        (["\n\n ERROR: Caught exception: x\n"], "Caught exception: x"),
        (["ERROR:\tThe option\n\tis wrong. Exiting."], "The option is wrong. Exiting."),
        (["Traceback (most recent call last):\n  File x\n    f()\nE: a\n b\n"], "E: a"),
        (["Traceback (most recent call last):\n  File x\n    assert a\n    ^^^\nE\n"],
         "E: assert a"),
        (['R: \n"""\nTraceback (most recent call last):\n  x\nE: a\n"""\n\nThe above\n\n'
          "Traceback (most recent call last):\n  File\nF: b\n"], "F: b"),
        (["ERROR: " + "word " * 300], "[...]"),
    ],
    ids=range(7),
)  # fmt: skip
def test_why_it_ended(printed, reason):
    stream = SimpleNamespace(text="")
    stream.write = lambda text: setattr(stream, "text", stream.text + text)
    heard = Heard(stream)  # type: ignore[arg-type]
    for text in printed:
        heard.write(text)
    assert stream.text == "".join(printed)
    assert heard.reason().endswith(reason)
    assert len(heard.reason()) <= 400


def test_dice_is_of_predictions_within_the_region():
    means: dict[str, list[Any]] = {
        "dice1": [0.1] * 3,
        "dice2": [0.5, "N/A", np.float64(0.25)],
        "dice3": [0.9] * 3,
    }
    assert dice_of(means) == {"foreground": 0.5, "2": 0.25}
    assert dice_of(None) == {}


# -- newer packages --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 5, 6, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_volumes_are_read_as_they_are_stored(tmp_path, shape, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    found = bridge.load_volume(str(tmp_path / "a.nii.gz"))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array.reshape((4, 5, 6 if len(shape) > 2 else 1)))


def test_scaled_volumes_are_scaled_and_several_are_refused(tmp_path):
    image = nib.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 1.0)
    nib.save(image, tmp_path / "a.nii")
    assert bridge.load_volume(str(tmp_path / "a.nii"))[0, 0, 0] == 3
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 3), np.int16), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ValueError, match="expected one volume"):
        bridge.load_volume(str(tmp_path / "b.nii"))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.bool_, np.float32, np.int16])
def test_what_is_found_by_argmax_can_be_saved(dtype):
    saved = bridge._saving(lambda image, path: nib.Nifti1Image(image, np.eye(4)))
    image = saved(np.ones((2, 2, 2), dtype), "path")
    assert image.get_data_dtype() in (np.int32, np.float32, np.int16)


def test_forked_processes_end_by_sigterm_whatever_they_are_stuck_in():
    """Not by a handler of Python's, which a process that is stuck does not run."""
    script = """
import os, signal, sys
from pathlib import Path
from gansynth_deepmedic.host import running
def train(order): pass
running.train, running.Order.read = train, lambda path: None
assert running.run(Path("order.json")) == 0
assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
if (child := os.fork()) == 0:
    os._exit(0 if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = run([sys.executable, "-W", "ignore", "-c", script], dict(os.environ))
    assert ended.returncode == 0, ended.stderr
