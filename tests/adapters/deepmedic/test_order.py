"""What a training process is told, and what it tells."""

import json
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.epoch_plan import Places
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import write_json_atomic
from gansynth_deepmedic.order import ORDER, PROGRESS, Order, Progress
from tests.adapters.deepmedic.arrays import WAYS, volume


def order_of(folder: Path, **more: Any) -> Order:
    clock = Clock(folder / "clock", 12, 3)
    plan = MixPlan(
        folder / "bank",
        Ratio(0.0, 1.0),
        Schedule.parse("finetune:33.3333333%@12.3456789%"),
        clock,
        chosen=(0, 1),
        seed=3,
        stream=(0, 4),
        log=folder / "log",
        patience=2.5,
    )
    cases = (volume("a", stored=WAYS[7], missing=[1]).host, volume("b", roi=False).host)
    wanted: dict[str, Any] = {
        "engine": "deepmedic",
        "output": folder,
        "train_config": folder / "train.cfg",
        "plan": plan,
        "cases": cases,
        "count": 6,
        "slots": ("synth/0000.nii.gz",),
        "model_config": folder / "model.cfg",
        "done": 2,
        "subepochs": 3,
        "seed": 9,
        "rim": 2,
        "augment_synthetic": False,
        "checkout": folder / "checkout",
        "arguments": ("-dev", "cpu"),
        "options": {"batch": 4, "paths": {"low": [3, 5]}},
    }
    return Order(**(wanted | more))


def written(order: Order, folder: Path) -> Path:
    write_json_atomic(folder / ORDER, order.to_json())
    return folder / ORDER


def plain(plan: MixPlan[int]) -> MixPlan[int]:
    """Without its clock, which is equal to no other."""
    return replace(plan, clock=None, schedule=Schedule(), ratio=Ratio(1, 1))


# -- a plan ----------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_json_to_the_last_digit(tmp_path):
    plan = order_of(tmp_path).plan
    again: MixPlan[int] = MixPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert plain(again) == plain(plan)
    assert (again.ratio, again.schedule) == (plan.ratio, plan.schedule)
    assert plan.clock is not None
    assert again.clock is not None
    wanted = (plan.clock.file, plan.clock.total, plan.clock.start)
    assert (again.clock.file, again.clock.total, again.clock.start) == wanted
    tables = [Places(one, 2, 5).table(1) for one in (plan, again)]
    assert np.array_equal(tables[0].real, tables[1].real)


@pytest.mark.parametrize("ratio", [(1 / 3, 2 / 7), (1234567.0, 7654321.0), (1.0, 0.0)])
def test_a_plain_plan_comes_back_from_json(ratio):
    plan: MixPlan[str] = MixPlan(None, Ratio(*ratio), chosen=("a", "b"), strict=True)
    assert MixPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_paths_are_absolute_in_json(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plan: MixPlan[int] = MixPlan(
        Path("bank"), Ratio(1, 1), clock=Clock("clock", 1), log=Path("log")
    )
    document = plan.to_json()
    found = [document["bank"], document["log"], document["clock"][0]]
    assert found == [str(tmp_path / name) for name in ("bank", "log", "clock")]


# -- an order --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{}, {"engine": "torch", "model_config": None, "checkout": None, "slots": (), "arguments": (),
          "options": {}}],
    ids=["deepmedic", "torch"],
)  # fmt: skip
def test_an_order_comes_back_from_its_file(tmp_path, more):
    order = order_of(tmp_path, **more)
    again = Order.read(written(order, tmp_path))
    assert replace(again, plan=plain(again.plan)) == replace(order, plan=plain(order.plan))
    assert again.to_json() == order.to_json()
    assert len(again.made()) == 6
    assert again.made().rim == 2
    assert again.made().cases == order.cases


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda doc: doc.pop("plan"), "KeyError: 'plan'"),
        (lambda doc: doc["plan"].pop("bank"), "KeyError: 'bank'"),
        (lambda doc: doc["plan"].update(ratio="1:1"), "TypeError"),
        (lambda doc: doc["plan"].update(other=1), "TypeError: .*other"),
        (lambda doc: doc["plan"].update(chosen=[]), "needs the cases chosen"),
        (lambda doc: doc["plan"].update(clock=["c", 0, 0]), "clock: 0 batches"),
        (lambda doc: doc.update(cases=["a"]), "TypeError"),
        (lambda doc: doc["cases"][0].update(units=[1]), "TypeError"),
        (lambda doc: doc.update(output=None), "TypeError"),
        (lambda doc: doc.update(count="6"), "count: '6', expected int"),
        (lambda doc: doc.update(engine="yolo"), "engine: 'yolo'"),
    ],
    ids=["plan", "bank", "ratio", "key", "chosen", "clock", "cases", "units", "output", "count",
         "engine"],
)  # fmt: skip
def test_a_damaged_order_is_named(tmp_path, change, words):
    document = order_of(tmp_path).to_json()
    change(document)
    path = tmp_path / ORDER
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityFault, match=f"^{path}: .*{words}.*; expected the file") as caught:
        Order.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", '{"engine": "deepm', "[]", None])
def test_what_is_no_order_at_all_is_named_once(tmp_path, text):
    path = tmp_path / ORDER
    if text is not None:
        path.write_text(text)
    with pytest.raises(IntegrityFault, match=f"^{path}: .*start anew") as caught:
        Order.read(path)
    assert str(caught.value).count(str(path)) == 1


# -- progress --------------------------------------------------------------------------------------


def lines(file: Path) -> list[Any]:
    text = file.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def tell_many(progress: Progress, who: int, start: Any) -> None:
    start.wait()
    for number in range(300):
        progress.tell(job={"who": who, "number": number, "sample": "x" * (number % 90)})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_lines_are_whole_whoever_writes(tmp_path, method):
    progress = Progress(tmp_path / PROGRESS)
    progress.tell(step=[1.0, 2.0])
    context = multiprocessing.get_context(method)
    start = context.Barrier(2)
    children = [context.Process(target=tell_many, args=(progress, n, start)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    progress.tell(trained=0)
    found = lines(tmp_path / PROGRESS)
    assert (found[0], found[-1]) == ({"step": [1.0, 2.0]}, {"trained": 0})
    for who in range(2):
        told = [line["job"]["number"] for line in found[1:-1] if line["job"]["who"] == who]
        assert told == list(range(300))


def test_numbers_of_numpy_are_numbers(tmp_path):
    progress = pickle.loads(pickle.dumps(Progress(tmp_path / PROGRESS)))
    progress.tell(epoch=np.int64(1), metrics={"dice": np.float32(0.5)})
    assert lines(tmp_path / PROGRESS) == [{"epoch": 1, "metrics": {"dice": 0.5}}]
