"""``gansynth.mix``: what cannot be is refused at once, in one line, before any item is opened."""

from typing import Any

import pytest
from torch.utils.data import IterableDataset

import gansynth
from gansynth.core.lineage import CaseRecord
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault

ITEMS = 12


class Cases:
    """Real items that nobody may open."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Any:
        raise AssertionError(index)


@pytest.mark.parametrize(
    "held_out",
    [
        ["case_1"],
        ["case_9", "person_1"],
        [CaseRecord("case_9", "person_1", "9" * 64)],
        [CaseRecord("case_9", "person_9", "1" * 64)],
    ],
    ids=["id", "id of a subject", "subject", "content"],
)
def test_a_bank_that_has_seen_a_held_out_case_is_refused(toy_bank, held_out):
    with pytest.raises(IntegrityFault, match="leakage: the bank of toy:3"):
        gansynth.mix(Cases(), toy_bank(), "1:1", held_out=held_out)


def test_held_out_cases_that_nobody_has_seen_are_fine(toy_bank):
    unseen: list[Any] = ["case_2", CaseRecord("case_3", "person_3", "3" * 64)]
    assert len(gansynth.mix(Cases(), toy_bank(), "1:1", held_out=unseen)) == ITEMS


class Stream(IterableDataset[Any]):
    def __iter__(self):
        return iter(())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no bank": ({"bank": None}, "--generator is missing"),
    "no bank there": ({"bank": "nowhere"}, "holds no bank.json"),
    "no ratio": ({"ratio": "half"}, "'half'"),
    "no schedule": ({"schedule": "linear"}, "'linear'"),
    "schedule without batches": ({"schedule": "anneal", "batch_size": 2}, "expected batches=N"),
    "schedule without a batch size": ({"schedule": "anneal", "batches": 9}, "batch_size=N"),
    "no batches": ({"schedule": "anneal", "batches": 0, "batch_size": 1}, "0 batches"),
    "fine-tuning of a mixture": (
        {"schedule": "finetune:10%@80%", "batches": 9, "batch_size": 1},
        "expected --ratio 0:1",
    ),
    "too few subjects": (
        {
            "ratio": "0:1",
            "schedule": "finetune:10%@80%",
            "batches": 9,
            "batch_size": 1,
            "subjects": ["a"],
        },
        "1 of them, expected one for each of 12 items",
    ),
    "no batch size": ({"batch_size": 0}, "batch_size is 0"),
    "a seed below 0": ({"seed": -1}, "seed is -1"),
    "held out, not a list": ({"held_out": "case_1"}, "expected a list"),
    "a stream": ({"dataset": Stream()}, "map-style"),
    "no length": ({"dataset": type("Bare", (), {"__getitem__": None})()}, "no len"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mix_refuses_at_once_in_one_line(toy_bank, name):
    wrong, says = REFUSED[name]
    told: dict[str, Any] = {"dataset": Cases(), "bank": toy_bank(), "ratio": "1:1"} | wrong
    dataset, bank, ratio = (told.pop(key) for key in ("dataset", "bank", "ratio"))
    with pytest.raises(DataFault if name == "no bank there" else UsageFault) as caught:
        gansynth.mix(dataset, bank, ratio, **told)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_log_that_is_a_file_is_refused(toy_bank, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageFault, match=r"log: .*file"):
        gansynth.mix(Cases(), toy_bank(), "1:1", log=tmp_path / "file")
