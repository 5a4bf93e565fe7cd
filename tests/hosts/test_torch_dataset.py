import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import gansynth
from gansynth.bank.reader import BankReader, BankWriter
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Sample
from gansynth.runtime.errors import DataFault, TrainingFault, UsageFault
from tests.expected import raises_fault

# On a machine of one core torch advises against two workers, which these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
ITEMS = 12
SHAPE = (6, 6, 6)


class Cases:
    """Real items, whose voxels are their index; every opening is written down, by any process."""

    colour = "blue"

    def __init__(self, log: Path) -> None:
        self.log = log

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index):
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        return {
            "image": torch.full((1, *SHAPE), float(index)),
            "label": torch.zeros((1, *SHAPE), dtype=torch.int16),
        }

    def opened(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []


@pytest.fixture
def cases(tmp_path):
    return Cases(tmp_path / "opened")


def values(items: Any) -> list[int]:
    """What is in the items: an index, or 100 and more for a sample."""
    return [int(item["image"].flatten()[0]) for item in items]


def epoch(loader: Any) -> list[int]:
    return [int(v) for batch in loader for v in batch["image"][:, 0, 0, 0, 0]]


def test_items_stay_in_their_places_and_real_ones_are_the_very_objects(cases, toy_bank):
    mixed: Any = gansynth.mix(cases, toy_bank(), "1:1", batch_size=2)
    assert len(mixed) == ITEMS
    for index, value in enumerate(values(mixed)):
        assert value in {index, *range(100, 108)}
    assert (mixed.colour, mixed.dataset) == ("blue", cases)  # other attributes are the data set's
    assert not hasattr(mixed, "no_such_thing")
    assert mixed.spec.lineage.cases[0].id == "case_1"
    items = [object() for _ in range(6)]
    mixed = gansynth.mix(items, toy_bank("b"), "1:0")
    assert list(mixed) == items  # which ends of itself
    for place in (-1, np.int64(2), torch.tensor(3)):
        assert mixed[place] is items[int(place)]


def test_a_sample_is_a_dictionary_of_tensors_unless_told_otherwise(cases, toy_bank):
    bank = toy_bank(channels=("T1", "FLAIR"))
    item = gansynth.mix(cases, bank, "0:1")[0]
    assert (item["image"].dtype, tuple(item["image"].shape)) == (torch.float32, (2, *SHAPE))
    assert (item["label"].dtype, tuple(item["label"].shape)) == (torch.int16, (1, *SHAPE))
    assert item["label"].sum() == 27
    mixed = gansynth.mix(cases, bank, "0:1", as_item=lambda sample: (sample.id, sample.provenance))
    name, provenance = mixed[0]
    assert provenance == {"case": "case_1"}
    (log,) = mixed.log.glob("draws-*.csv")  # has every draw by id and case
    assert log.read_text() == f"synthetic,{name},case_1\n"


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize(("listed", "size"), [(1, 4), (18, 18)], ids=["items", "batches"])
def test_every_batch_holds_the_share_also_of_lists_that_are_parts_of_one(
    cases, toy_bank, p, listed, size
):
    # TorchIO's queue asks for lists of one.
    mixed = gansynth.mix(cases, toy_bank(), f"{1 - p}:{p}", batch_size=size)
    asked = (mixed.__getitems__([i % ITEMS] * listed) for i in range(20 * size // listed))
    drawn = np.reshape([value >= 100 for one in asked for value in values(one)], (20, size))
    counts = drawn.sum(axis=1)
    assert set(counts) <= {int(p * size), int(np.ceil(p * size))}
    assert np.abs(np.cumsum(counts) - p * size * np.arange(1, 21)).max() <= 1 + 1e-9


def test_the_order_of_a_batch_stays_and_items_are_opened_together(toy_bank):
    class Together(list[Any]):
        asked: list[list[int]] = []  # noqa: RUF012

        def __getitems__(self, indices):
            self.asked.append(list(indices))
            return [self[i] for i in indices]

    real = Together({"image": torch.full((1, *SHAPE), float(i))} for i in range(ITEMS))
    found = values(gansynth.mix(real, toy_bank(), "1:1").__getitems__([3, 1, 11, 7, 0, 2]))
    kept = [i for i, value in zip([3, 1, 11, 7, 0, 2], found, strict=True) if value == i]
    assert len(kept) == 3
    assert real.asked == [kept]


def test_the_page_s_example_runs_and_every_batch_holds_the_share(example, cases, toy_bank):
    names = example("torch", real=cases, bank=toy_bank())
    assert (names["mixed"].counts().real, names["mixed"].counts().synthetic) == (6, 6)
    drawn = [[v >= 100 for v in batch["image"][:, 0, 0, 0, 0]] for batch in names["loader"]]
    assert [sum(batch) for batch in drawn] == [2, 2, 2]
    opened = cases.opened()
    assert all(len({*opened[i : i + 6]}) == 6 for i in (0, 6))


SLOW = [pytest.param(start, False, marks=pytest.mark.slow) for start in ("spawn", "forkserver")]


@pytest.mark.parametrize(("start", "persistent"), [("fork", False), ("fork", True), *SLOW])
def test_workers_and_epochs_draw_distinct_samples(cases, toy_bank, start, persistent):
    mixed = gansynth.mix(cases, toy_bank(samples=64), "0:1")
    mixed[0]  # open in the parent, which a fork then inherits
    how: Any = {"persistent_workers": persistent, "multiprocessing_context": start}
    loader = DataLoader(mixed, batch_size=6, num_workers=2, **how)
    orders = [epoch(loader) for _ in range(2)]
    halves = [tuple(order[i : i + 6]) for order in orders for i in (0, 6)]
    assert len(set(halves)) == 4
    assert all(len(set(order)) == 12 for order in orders)
    assert cases.opened() == []
    counts = mixed.counts()
    assert (counts.real, counts.synthetic) == (0, 25)
    assert counts.distinct >= 24  # the parent knows nothing of workers, nor they of it


def test_two_workers_draw_at_places_of_their_own(toy_bank):
    items = [{"image": torch.zeros((1, *SHAPE)), "label": torch.zeros(SHAPE)}] * 96
    mixed = gansynth.mix(items, toy_bank(), "1:1", as_item=lambda sample: {"synthetic": 1.0})
    drawn = DataLoader(mixed, 4, num_workers=2, collate_fn=lambda batch: batch)
    places = [["synthetic" in item for item in batch] for batch in drawn]
    assert places[::2] != places[1::2]  # workers take batches in turn


def test_the_same_seed_draws_the_same_and_another_rank_does_not(cases, toy_bank, monkeypatch):
    bank = toy_bank(samples=64)

    def draw(**told: Any) -> list[int]:
        return values(gansynth.mix(cases, bank, "0:1", seed=3, **told))

    first = draw()
    assert draw() == first
    assert draw(rank=1) != first
    assert draw(done=100) != first
    monkeypatch.setenv("RANK", "1")
    assert draw() == draw(rank=1)


def test_synthetic_only_without_a_sample_stops_and_opens_no_real_item(cases, toy_bank):
    bank = toy_bank(samples=0, frozen=False)
    mixed = gansynth.mix(cases, bank, "0:1", sample_timeout=0.3)
    batches = iter(DataLoader(mixed, batch_size=2, num_workers=1))
    with pytest.raises(TrainingFault, match="the bank is empty"):
        next(batches)
    batches._shutdown_workers()  # type: ignore[attr-defined]  # left to the collector: 5 s
    assert cases.opened() == []
    assert "the bank is empty" in mixed.counts().stopped


def test_fine_tuning_opens_the_chosen_share_only(cases, toy_bank):
    subjects = [f"person {i // 2}" for i in range(ITEMS)]
    told: dict[str, Any] = {"schedule": "finetune:30%@50%", "batch_size": 3, "batches": 16}
    mixed = gansynth.mix(cases, toy_bank(), "0:1", subjects=subjects, **told)
    loader = DataLoader(mixed, batch_size=3, shuffle=True, num_workers=2)
    first = [v for _ in range(2) for v in epoch(loader)]
    assert min(first) >= 100
    assert cases.opened() == []
    rest = [v for _ in range(2) for v in epoch(loader)]
    assert max(rest) < ITEMS
    assert sorted(rest) == sorted(cases.opened())
    people = Counter(subjects[i] for i in set(rest))
    assert sorted(people.values()) == [2, 2]


def test_samples_without_labels_are_refused_or_counted_as_missing_unless_a_form_is_said(
    cases, tmp_path, toy_bank, example
):
    spec = BankReader(toy_bank()).spec
    with BankWriter.create(tmp_path / "bare", spec) as writer:
        image = np.full((1, *SHAPE), 100, np.float32)
        writer.publish(Sample(image, provenance={"class": "spotted"}), {})
    pictures = [(np.zeros((1, *SHAPE), np.float32), 0) for _ in range(ITEMS)]
    with raises_fault("hosts.bank-samples-without-labels"):
        gansynth.mix(pictures, tmp_path / "bare", "1:1")
    names = {"real": pictures, "bank": tmp_path / "bare", "classes": ["plain", "spotted"]}
    mixed: Any = example("classes", gansynth=gansynth, np=np, torch=torch, **names)["mixed"]
    assert sorted(kind for _, kind in mixed.__getitems__([0, 1])) == [0, 1]
    BankWriter.create(tmp_path / "live", replace(spec, frozen=False)).close()
    mixed = gansynth.mix(cases, tmp_path / "live", "1:1")
    (path,) = (tmp_path / "bare").glob("sample-*")
    path.rename(tmp_path / "live" / path.name)
    mixed.__getitems__([0, 1])
    assert mixed.counts().reasons == {"sample 000000 has no labels": 1}


def test_a_temporary_log_goes_with_the_process_that_made_it(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", TEMPORARY]
    told = subprocess.check_output(words, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    folder, real = told.split()
    assert real == "3"
    assert folder.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


TEMPORARY = """
import os
from gansynth.hosts.mixing.mixture import Mixture
from gansynth.hosts.mixing.mixer import Mixer
mixed = Mixture(None, "1:0")
Mixer(mixed.plan).batch(range(3))
if os.fork() == 0:
    raise SystemExit  # runs what is to run at exit
os.wait()
print(mixed.log, mixed.counts().real)
"""


@pytest.mark.parametrize(
    "held_out",
    [
        ["case_1"],
        ["case_9", "person_1"],
        [CaseRecord("case_9", "person_1", "9" * 64)],
    ],
    ids=["id", "id of a subject", "subject"],
)
def test_a_bank_that_has_seen_a_held_out_case_is_refused(cases, toy_bank, held_out):
    unseen: list[Any] = ["case_2", CaseRecord("case_3", "person_3", "3" * 64)]
    assert len(gansynth.mix(cases, toy_bank(), "1:1", held_out=unseen)) == ITEMS
    with raises_fault("lineage.held-out-case-seen"):
        gansynth.mix(cases, toy_bank("same"), "1:1", held_out=unseen + held_out)


def test_a_strange_held_out_name_is_told_a_case_as_the_bank_spells_it(cases, toy_bank):
    bank = toy_bank(case="Case_1")
    with raises_fault("hosts.held-out-names-strange", names="such as 'Case_1', so"):
        gansynth.mix(cases, bank, "1:1", held_out=["nobody"])


class Stream(IterableDataset[Any]):
    def __iter__(self):
        return iter(())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no bank": ({"bank": None}, "bank=None: expected"),
    "no bank there": ({"bank": "nowhere"}, "holds no bank.json"),
    "schedule without batches": ({"schedule": "anneal", "batch_size": 2}, "expected batches=N"),
    "schedule without a batch size": ({"schedule": "anneal", "batches": 9}, "batch_size=N"),
    "no batches": ({"schedule": "anneal", "batches": 0, "batch_size": 1}, "batches=0: "),
    "too few subjects": ({"subjects": ["a"]}, "1 of them, expected one for each of 12 items"),
    "no batch size": ({"batch_size": 0}, "batch_size=0: "),
    "a seed below 0": ({"seed": -1}, "seed=-1: "),
    "held out, not a list": ({"held_out": "case_1"}, "expected a list"),
    "a stream": ({"real": Stream()}, "map-style"),
    "no length": ({"real": type("Bare", (), {"__getitem__": None})()}, "without length"),
    "a log that is a file": ({"log": __file__}, f"log: {__file__}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mix_refuses_at_once_in_one_line_and_opens_no_item(cases, toy_bank, name):
    wrong, says = REFUSED[name]
    told: dict[str, Any] = {"real": cases, "bank": toy_bank(), "ratio": "1:1"} | wrong
    with pytest.raises(DataFault if name == "no bank there" else UsageFault) as caught:
        gansynth.mix(**told)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cases.opened() == []
