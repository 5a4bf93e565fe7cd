"""The process in DeepMedic's own Python, with a small program of our own in its place."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth.runtime.errors import GansynthError
from gansynth_deepmedic import program
from gansynth_deepmedic.host import bridge
from gansynth_deepmedic.host.serving import PATIENCE, Serving, refuse_test
from gansynth_deepmedic.host.watching import (
    OutputListener,
    SyntheticCentres,
    WatchedSaver,
    WatchedSession,
    core_as_weights,
    dice_of,
)
from tests.adapters.deepmedic.arrays import write_bank
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.adapters.deepmedic.orders import BRIGHT, Training, run, training
from tests.conftest import content

MODES = (-1, 0, 2)
BLOCKER = """
import sys

HEAVY = "torch pydantic scipy yaml click pluggy rich filelock psutil safetensors pandas matplotlib"

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in [*HEAVY.split(), "tensorflow"]:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""
VALUE, SHIFT, CHANCE = 0, 5, -1
"""What the fake program writes of a segment: value at its centre, augmentation, chance."""
TWO: dict[str, Any] = {"epochs": 2, "subepochs": 2, "val": 1}


def here(checkout: Path) -> program.DeepMedicProgram:
    """A program that this Python runs."""
    return program.DeepMedicProgram(checkout, Path(sys.executable), {})


def started(made: Training, checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    words = program.command(here(checkout), made.path)
    return run(words, {**program.environ_of(here(checkout)), **environ})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return write_fake(tmp_path_factory.mktemp("fake") / "checkout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, checkout) -> Callable[[int], Training]:
    """Two epochs in one of the ways that DeepMedic samples; nothing heavy can be imported."""
    done: dict[int, Training] = {}

    def train(mode: int) -> Training:
        if mode not in done:
            folder = tmp_path_factory.mktemp(f"mode_{mode}")
            (folder / "sitecustomize.py").write_text(BLOCKER)
            values = {"AUGMENT": {"hist_dist": True}}
            made = training(folder / "toy", mode=mode, checkout=checkout, values=values, **TWO)
            before = content(checkout)
            ended = started(made, checkout, PYTHONPATH=str(folder))
            assert ended.returncode == 0, ended.stderr
            assert content(checkout) == before  # nothing is written into it
            done[mode] = made
        return done[mode]

    return train


@pytest.fixture
def ends(tmp_path, checkout) -> Callable[..., tuple[Training, str]]:
    """Trains to an exit code: what it printed, or the one line that says why it failed."""

    def train(code: int, checkout: Path = checkout, **asked: Any) -> tuple[Training, str]:
        made = training(tmp_path / "toy", checkout=checkout, **asked)
        ended = started(made, checkout)
        assert ended.returncode == code, ended.stdout + ended.stderr
        if code == 0:
            return made, ended.stdout
        (said,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in ended.stderr
        assert made.told("end") == []
        return made, said

    return train


def fed(made: Training, kind: str = "train") -> list[list[float]]:
    """The segments that were trained on, in order."""
    file = made.toy.folder / "output" / "fed.jsonl"
    batches = [json.loads(line) for line in file.read_text().splitlines()]
    return [segment for batch in batches if batch["kind"] == kind for segment in batch["x"]]


@pytest.mark.parametrize("mode", MODES)
def test_every_subepoch_has_the_ratio_in_cases_and_in_segments(trained, mode):
    made = trained(mode)
    jobs, segments = made.told("job"), fed(made)
    found = Counter((job["subepoch"], job["kind"]) for job in jobs)
    assert found == {(k, kind): n for k in range(4) for kind, n in (("real", 2), ("synthetic", 4))}
    places = [(k, place) for k in range(4) for place in range(6)]
    assert sorted((job["subepoch"], job["place"]) for job in jobs) == places
    assert {job["segments"] for job in jobs} == {10}
    bright = [segment[VALUE] >= BRIGHT for segment in segments]
    assert [sum(bright[60 * k :][:60]) for k in range(4)] == [40] * 4
    counts = summarise(made.log)
    assert (counts.real, counts.synthetic, counts.fell_back) == (8, 16, 0)
    assert len({segment[CHANCE] for segment in segments}) == len(segments) == 240
    assert len({tuple(map(tuple, segments[60 * k :][:60])) for k in range(4)}) == 4
    assert all(segment[SHIFT] != 0 for segment in segments)


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


def test_all_ways_of_sampling_train_and_validate_on_the_same_segments(trained):
    first, second, third = (fed(trained(mode)) for mode in MODES)
    assert first == second == third
    first, second, third = (fed(trained(mode), "val") for mode in MODES)
    assert first == second == third != []
    assert all(segment[VALUE] < 100 for segment in first)


def test_a_training_that_goes_on_draws_what_was_to_come(ends, trained):
    values = {"TRAINED": 1, "AUGMENT": {"hist_dist": True}}
    made, _ = ends(0, done=1, values=values, **TWO)
    assert made.told("trained") == [2, 3]
    assert fed(made) == fed(trained(-1))[120:]


def test_synthetic_cases_may_go_without_augmentation(ends):
    values = {"AUGMENT": {"hist_dist": True}}
    made, _ = ends(0, subepochs=1, augment_synthetic=False, values=values)
    shifted = {segment[VALUE] >= BRIGHT: segment[SHIFT] != 0 for segment in fed(made)}
    assert shifted == {True: False, False: True}


@pytest.mark.parametrize("mode", [pytest.param(-1, marks=pytest.mark.slow), 2])
def test_a_patch_too_small_for_a_segment_is_sampled_around_and_said(tmp_path, ends, mode):
    """It lies at the volume's edge, and no segment fits there."""
    size = (2, 2, 2)
    told = {"case": "pat_00", "shape": [28, 32, 36], "placement": {"corner": [0, 0, 0]}}
    patch = Sample(np.full((2, *size), BRIGHT, np.float32), np.ones(size, np.int16), None, told)
    plan: MixerConfig[int] = MixerConfig(
        write_bank(tmp_path / "small", [patch]), Ratio(1, 2), stream=(0,)
    )
    made, printed = ends(0, mode=mode, plan=plan, roi=False)
    spread = {job["kind"]: job.get("spread", False) for job in made.told("job")}
    assert spread == {"synthetic": True, "real": False}
    assert {job["segments"] for job in made.told("job")} == {10}
    assert "taken from the whole case" in printed


EXIT = ["ended itself (exit 1)", "Two weight maps were expected"]


@pytest.mark.parametrize(
    ("where", "code", "mode", "words"),
    [
        ("config", 2, 0, ["rejects its configuration", '"channelsTraining" needed']),
        ("assertion", 2, 0, ["AssertionError", 'assert sampling.FAIL != "assertion"']),
        ("training", 5, 0, ["KeyError: 'NaN'"]),
        ("loading", 5, 2, ["ValueError: could not broadcast"]),
        pytest.param("exit", 5, 0, EXIT, marks=pytest.mark.slow),
        ("exit", 5, 2, EXIT),
        ("final", 5, -1, ["without its final checkpoint", "none was written"]),
    ],
)
def test_a_failure_is_not_exit_0(ends, where, code, mode, words):
    _, said = ends(code, mode=mode, subepochs=1, val=1, values={"FAIL": where})
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("arguments", "says"), [(("-fly", "high"), "invalid arguments"), (("-test", "a.cfg"), "-test")]
)
def test_arguments_that_are_not_for_it(ends, arguments, says):
    assert says in ends(2, arguments=arguments)[1]


@pytest.mark.parametrize("mode", [-1, 2])
def test_a_fault_of_ours_keeps_its_words(ends, tmp_path, mode):
    """Whatever the program makes of it; it may come from a forked process."""
    plan: MixerConfig[int] = MixerConfig(
        tmp_path / "nowhere", Ratio(0, 1), stream=(0,), patience=0.1
    )
    _, said = ends(5, mode=mode, plan=plan)
    assert "no synthetic sample after 0.1 s" in said
    assert "no real case may be drawn now" in said


def test_a_slot_among_the_validation_cases(tmp_path, checkout):
    made = training(tmp_path / "toy", val=2, checkout=checkout)
    for name in ("flair", "t1c", "labels", "roi"):
        file = made.toy.folder / f"validation_{name}.cfg"
        slot = Path(made.order.slots[3]).parent / f"{name}.nii.gz"
        file.write_text(file.read_text() + f"{slot}\n")
    ended = started(made, checkout)
    assert ended.returncode == 6, ended.stderr
    assert "slot_0003" in ended.stderr
    assert "a synthetic slot among the validation cases" in ended.stderr
    assert made.told("job") == []


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("dataManagement/sampling.py", "num_parallel_proc", "workers",
         "get_samples_for_subepoch takes no num_parallel_proc"),
        ("routines/testing.py", "from deepmedic", "import no_such_flow\nfrom deepmedic",
         "No module named 'no_such_flow'"),
    ],
    ids=["arguments", "imports"],
)  # fmt: skip
def test_a_checkout_that_is_another(tmp_path, ends, file, old, new, says):
    checkout = write_fake(tmp_path / "checkout")
    path = checkout / "deepmedic" / file
    path.write_text(path.read_text().replace(old, new))
    assert says in ends(4, checkout)[1]


def test_it_is_told_which_order():
    ended = run([sys.executable, program.command(here(Path()), Path())[1]], {})
    assert (ended.returncode, ended.stderr[:13]) == (2, "error: usage:")


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Any:
    """Of four cases and six slots, three of six cases synthetic."""
    plan: MixerConfig[int] = MixerConfig(None, Ratio(1, 1), patience=300.0)
    return training(tmp_path_factory.mktemp("order") / "toy", plan=plan).order


@pytest.fixture
def serving(order) -> Serving:
    return Serving(order, OutputListener(io.StringIO()))


def lists(one: Serving, slots: int = 6) -> list[list[str]]:
    listed = [case.channels[0] for case in one.order.cases] + list(one.order.slots)[:slots]
    return [[path] for path in listed]


def drawn(one: Serving, then: Callable[[], Any], **how: Any) -> Any:
    """Sample a training subepoch by calling this; the generators of this process are as before."""
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        return one.draw(then, **{"training": True, "processes": -1, **how})
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002


REFUSED: dict[str, tuple[Callable[[Serving], Any], int, list[str]]] = {
    "another task": (lambda s: refuse_test(("-train", "my.cfg")), 2, ["-train: not valid with"]),
    "another number of subepochs": (
        lambda s: s.begin(1, 4, 0), 6, ["numberOfSubepochs = 4, expected 3"],
    ),
    "another list": (
        lambda s: s.check_lists([*lists(s)[:-1], ["/x/flair.nii.gz"]], []), 6,
        ["10 training cases with /x/flair.nii.gz", "4 real ones and 6 slots as ordered"],
    ),
    "another order of the list": (
        lambda s: s.check_lists(lists(s)[::-1], []), 6, ["10 training cases with another order"],
    ),
    "a slot too few": (
        lambda s: drawn(s, lambda: s.choose(list, 6)), 6,
        ["more synthetic cases than the training lists have slots (2)"],
    ),
    "segments that do not come out even": (
        lambda s: drawn(s, lambda: s.share(np.array([10] * 5 + [11]), 61)), 6,
        ["= 61, expected a multiple of the 6 cases"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_another_training_than_ordered_is_refused(serving, name):
    ask, code, says = REFUSED[name]
    with pytest.raises(GansynthError) as fault:
        ask(serving)
    assert fault.value.exit_code == code
    assert [words for words in says if words not in str(fault.value)] == []


def test_the_training_that_was_ordered_is_not(serving):
    serving.check_lists(lists(serving), ["/elsewhere/flair.nii.gz"])
    serving.begin(1, 3, 0)
    assert serving._heard.getvalue() == ""
    serving.begin(2, 3, 1)
    said = "has been trained for 1 epochs, the record says 0; resuming from epoch 1\n"
    assert serving._heard.getvalue().endswith(said)
    chosen = drawn(serving, lambda: serving.choose(list, 10))
    assert sorted(entry for entry in chosen if entry >= 4) == [4, 5, 6]
    refuse_test(("-model", "a.cfg"))
    drawn(serving, lambda: None, training=False)
    assert serving.share([10, 11], 21) == [10, 11]  # not of a subepoch to train on


@pytest.mark.parametrize(("processes", "patience"), [(-1, 300.0), (0, 300.0), (2, PATIENCE)])
def test_a_forked_process_gives_up_before_it_is_started_anew(serving, processes, patience):
    drawn(serving, lambda: None, processes=processes)
    assert serving.subepochs.plan.patience == patience


@pytest.fixture
def waiting(tmp_path, checkout):
    """Starts a training that waits in the middle of its sampling, and yields its process."""
    children: list[subprocess.Popen[str]] = []

    def start(mode: int, **more: str) -> subprocess.Popen[str]:
        made = training(tmp_path / "toy", mode=mode, checkout=checkout, values={"FAIL": "waiting"})
        environ = {**os.environ, **program.environ_of(here(checkout)), "PYTHONUNBUFFERED": "1"}
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        words = program.command(here(checkout), made.path)
        child = subprocess.Popen(words, env=environ | more, start_new_session=True, **pipes)
        children.append(child)
        assert child.stdout is not None
        next((line for line in child.stdout if line == "waiting\n"), None)
        return child

    yield start
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
        with_it = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
        child.kill()
        for process in with_it:
            process.kill()
        child.wait()


@pytest.mark.fault(30, 34)
@pytest.mark.parametrize(
    ("mode", "number", "code"),
    [
        pytest.param(-1, signal.SIGTERM, 143, marks=pytest.mark.slow),
        (0, signal.SIGINT, 130),
        (2, signal.SIGTERM, 143),
        pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_it_and_all_that_it_forked(waiting, mode, number, code):
    child = waiting(mode)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert bool(workers) == (mode > 0)
    child.send_signal(number)
    assert child.wait(timeout=60) == code
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_it_ends_when_its_parent_has_gone(waiting):
    assert waiting(0, GANSYNTH_PARENT=str(2**22 + 1)).wait(timeout=60) == 143


def test_forked_processes_end_by_sigterm_whatever_they_are_stuck_in():
    """Not by a handler of Python's, which a process that is stuck does not run."""
    script = """
import os, signal, sys
from pathlib import Path
from gansynth_deepmedic.host import running
def train(order): pass
running.train, running.TrainingOrder.read = train, lambda path: None
assert running.run(Path("order.json")) == 0
assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
if (child := os.fork()) == 0:
    os._exit(0 if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = run([sys.executable, "-W", "ignore", "-c", script], dict(os.environ))
    assert ended.returncode == 0, ended.stderr


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


@pytest.mark.parametrize(
    ("where", "spread"),
    [
        (np.s_[1:6, 2:7, 3:8], False),
        (np.s_[0:2, 0:9, 0:9], True),  # at the edge no segment fits
        (np.s_[0:0, 0:0, 0:0], True),  # and a category of share 0 is never drawn
    ],
)
def test_centres_lie_where_the_case_is_synthetic_if_a_whole_segment_fits_there(where, spread):
    core = np.zeros((9, 9, 9), bool)
    core[where] = True
    rng = np.random.default_rng(0)
    labels, roi = (rng.integers(0, 3, (9, 9, 9)).astype(np.uint8) for _ in range(2))
    centres = SyntheticCentres(Uniform(), edges, (5, 5, 5))
    maps = centres.derive_sampling_maps_per_cat(core_as_weights(core), labels, roi, (9, 9, 9))
    wanted = [roi, labels] if spread else [(roi > 0) & core, (labels > 0) & core]
    for found, one in zip(maps, wanted, strict=True):
        np.testing.assert_array_equal(found, one)
    assert centres.spread == spread
    assert centres.get_n_sampling_cats() == 2
    # DeepMedic multiplies by a mask of int8 in the map's own type.
    assert spread or np.can_cast(np.int8, maps[0].dtype)


def test_only_runs_that_are_fed_are_steps():
    noted: list[tuple[float, ...]] = []
    original = SimpleNamespace(run=lambda fetches, feed_dict: [0.25, None], graph="graph")
    session = WatchedSession(original, lambda *step: noted.append(step))
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
    WatchedSaver(original, seen.append).save(None, "path", write_meta_graph=False)
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
    stream = io.StringIO()
    heard = OutputListener(stream)
    for text in printed:
        heard.write(text)
    assert stream.getvalue() == "".join(printed)
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
