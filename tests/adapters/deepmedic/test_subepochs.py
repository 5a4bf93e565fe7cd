import json
import multiprocessing
import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.batch_counter import BatchCounter
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Sample
from gansynth.hosts.epoch_plan import EpochPlan
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth_deepmedic.insertion import LoadedCase
from gansynth_deepmedic.subepochs import SubepochCase, Subepochs
from gansynth_deepmedic.training_order import ORDER, PROGRESS, ProgressWriter, TrainingOrder
from tests.adapters.deepmedic.arrays import WAYS, patch, reader, volume, write_bank

VOLUMES = tuple(
    volume(f"pat_{n}", (8 + n, 7, 6), stored=WAYS[11 * n + 3], roi=n != 2, seed=n) for n in range(4)
)
READ = reader(VOLUMES)


def samples_of(count: int, volumes: int = 4) -> list[Sample]:
    """Sample i is 100 + i all over."""
    places: Any = ((1, 1, 1), (5, 5, 4))
    return [patch(VOLUMES[n % volumes], *places, value=100.0 + n) for n in range(count)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples_of(24))


def plan_of(bank: Path | None, ratio: str = "1:2", **more: Any) -> MixerConfig[int]:
    return MixerConfig(bank, Ratio.parse(ratio), **{"seed": 5, "patience": 0.2, **more})


def made(plan: MixerConfig[int], count: int = 6, **more: Any) -> Subepochs:
    return Subepochs(plan, [one.host for one in VOLUMES], count, **more)


def load(subepochs: Subepochs, subepoch: int) -> list[tuple[SubepochCase, LoadedCase]]:
    return [(place, subepochs.load(place, READ)) for place in subepochs.order(subepoch)]


def drawn(subepochs: Subepochs, subepoch: int) -> list[tuple[str, str]]:
    return [(one.case, one.sample) for _, one in load(subepochs, subepoch)]


def test_every_subepoch_holds_what_was_asked_for(bank, tmp_path):
    subepochs = made(plan_of(bank, log=tmp_path))
    used, distinct = Counter[str](), set[str]()
    for subepoch in range(6):
        found = load(subepochs, subepoch)
        assert [(place.subepoch, place.number) for place, _ in found] == [
            (subepoch, number) for number in range(6)
        ]
        assert sum(place.synthetic for place, _ in found) == 4
        for place, one in found:
            assert bool(one.sample) == place.synthetic
            if not one.sample:
                assert one.case == VOLUMES[place.real].host.id
                used[one.case] += 1
            distinct.add(one.sample)
    assert max(used.values()) - min(used.values()) <= 1
    assert len(distinct - {""}) == 24  # all of the bank, each once
    counts = summarise(tmp_path)
    assert (counts.real, counts.synthetic, counts.fell_back) == (12, 24, 0)


def test_a_real_case_is_as_its_files_have_it(bank):
    for place, one in load(made(plan_of(bank, "1:0"), 4), 0):
        of = VOLUMES[place.real]
        assert np.array_equal(of.host.view(one.image), of.image)
        assert np.array_equal(of.host.view(one.labels), of.labels)
        assert (one.roi is None) == (of.roi is None)
        if one.roi is not None and of.roi is not None:
            assert np.array_equal(of.host.view(one.roi), of.roi)
        assert (one.core, one.sample) == (None, "")


def test_a_synthetic_place_holds_a_sample_in_its_own_case(bank):
    by_name = {one.host.id: one for one in VOLUMES}
    for _, one in load(made(plan_of(bank, "0:1"), rim=1), 0):
        of = by_name[one.case]
        scale, offset = of.host.units[0]
        number = int(one.sample)
        assert of.host.id == f"pat_{number % 4}"
        assert one.core is not None
        assert np.allclose(one.image[0][one.core], (100 + number) * scale + offset)
        assert (one.labels[one.core] == 1).all()
        assert np.array_equal(of.host.view(one.image)[:, 6:], of.image[:, 6:])


def test_labels_and_regions_are_rounded_and_a_missing_channel_is_zero():
    of = volume(shape=(3, 3, 3), missing=[0])
    assert of.host.roi is not None
    files = dict(of.files)
    files[of.host.labels] = files[of.host.labels].astype(np.float64) - 0.2
    files[of.host.roi] = files[of.host.roi].astype(np.uint8)
    one = Subepochs(plan_of(None, "1:0"), [of.host], 1).read(of.host, lambda path: files[path])
    assert one.roi is not None
    assert (one.labels.dtype.name, one.roi.dtype.name) == ("int16", "int16")
    assert np.array_equal(one.labels, of.labels.T)
    assert not one.image[0].any()
    assert np.array_equal(of.host.view(one.image)[1], of.image[1])


@pytest.mark.parametrize("kind", ["0.nii.gz", "roi.nii.gz"])
def test_files_of_different_shapes_are_named(kind):
    files = {**VOLUMES[0].files, f"/data/pat_0/{kind}": np.zeros((2, 2, 2), np.int16)}
    with pytest.raises(DataFault, match=rf"^/data/pat_0/{kind}: shape \(2, 2, 2\), expected"):
        made(plan_of(None, "1:0")).read(VOLUMES[0].host, lambda path: files[path])


SIZE = (5, 5, 4)
FIRST = patch(VOLUMES[0], (1, 1, 1), SIZE)
SLICE = {"case": "pat_0", "placement": {"corner": [1, 1], "slice_index": 3}}
THREE = volume("pat_0", VOLUMES[0].host.shape, units=((1.0, 0.0),) * 3)
BAD = {
    "stranger": (replace(FIRST, provenance={**FIRST.provenance, "case": "pat_9"}),
                 "is of none of the training cases"),
    "slice": (replace(FIRST, provenance=SLICE), "no place in a volume"),
    "outside": (replace(FIRST, labels=np.full(SIZE, -1, np.int16)), "region of interest"),
    "beyond": (patch(VOLUMES[0], (50, 1, 1), SIZE), "beyond"),
    "whole": (patch(VOLUMES[2], None, (7, 7, 6)), "of a volume of shape (7, 7, 6)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*BAD, "channels"])
def test_what_cannot_be_inserted_is_not_used_and_counted(tmp_path, kind):
    sample, reason = {**BAD, "channels": (patch(THREE, None), "3 channel")}[kind]
    subepochs = made(plan_of(write_bank(tmp_path / "bank", [sample]), log=tmp_path / "log"))
    assert all(one.sample == "" for _, one in load(subepochs, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.fell_back) == (6, 4)
    assert reason in next(iter(counts.reasons))


def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path):
    bad = [sample for sample, _ in BAD.values()]
    bank = write_bank(tmp_path / "bank", bad + samples_of(5))
    subepochs = made(plan_of(bank, log=tmp_path / "log"))
    for subepoch in range(10):
        assert sum(bool(one.sample) for _, one in load(subepochs, subepoch)) == 4
    assert summarise(tmp_path / "log").fell_back == 0


def test_a_replaced_file_of_a_real_case_stops_it(tmp_path):
    subepochs = made(plan_of(write_bank(tmp_path / "bank", samples_of(2, volumes=1))))
    place = next(place for place in subepochs.order(0) if place.synthetic)
    with pytest.raises(DataFault, match="have changed"):
        subepochs.load(place, reader([volume("pat_0", (5, 5, 5))]))


def test_the_same_seed_draws_the_same_in_any_order(bank):
    here, there = made(plan_of(bank)), made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(3)]
    assert drawn(there, 2) == wanted[2]
    backwards = [there.load(place, READ).sample for place in reversed(there.order(0))]
    assert backwards[::-1] == [sample for _, sample in wanted[0]]
    assert drawn(made(plan_of(bank, seed=6)), 0) != wanted[0]
    assert len({tuple(one) for one in wanted}) == 3


def test_randomness_of_the_host_is_its_own(bank):
    subepochs = made(plan_of(bank))
    keys = [(0,), (0, 1), (20, 0, 0), (1, 0)]
    found = [subepochs.rng(*key).integers(2**60) for key in keys]
    assert len({*found, *(subepochs.places.rng(*key).integers(2**60) for key in keys)}) == 8
    assert found == [made(plan_of(bank)).rng(*key).integers(2**60) for key in keys]


_inherited: list[Subepochs] = []


def begin(subepochs: Subepochs) -> None:
    _inherited[:] = [subepochs]


def ask(subepoch: int) -> list[tuple[str, str]]:
    return drawn(_inherited[0], subepoch)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_every_process_draws_the_same(bank, start):
    here, there = made(plan_of(bank)), made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(2)]
    there.load(there.order(0)[0], READ)  # what is open here is not theirs
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(1, context, begin, (there,)) as pool:
        assert [pool.submit(ask, n).result(60) for n in range(2)] == wanted


def test_a_copy_refuses_what_the_original_does(tmp_path):
    bank = write_bank(tmp_path / "bank", [BAD["stranger"][0]])
    copy = pickle.loads(pickle.dumps(made(plan_of(bank, log=tmp_path / "log"))))
    assert all(one.sample == "" for _, one in load(copy, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 0, 4)


def order_of(folder: Path, **more: Any) -> TrainingOrder:
    plan = MixerConfig(
        folder / "bank",
        Ratio(0.0, 1.0),
        Schedule.parse("finetune:33.3333333%@12.3456789%"),
        BatchCounter(folder / "clock", 12, 3),
        chosen=(0, 1),
        seed=3,
        stream=(0, 4),
        log=folder / "log",
        patience=2.5,
    )
    wanted: dict[str, Any] = {
        "output": folder,
        "train_config": folder / "train.cfg",
        "plan": plan,
        "cases": (volume("a", stored=WAYS[7], missing=[1]).host, volume("b", roi=False).host),
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
    return TrainingOrder(**(wanted | more))


def plain(plan: MixerConfig[int]) -> MixerConfig[int]:
    """Without its clock, which is equal to no other."""
    return replace(plan, batch_counter=None, schedule=Schedule(), ratio=Ratio(1, 1))


def test_a_plan_comes_back_from_json_to_the_last_digit(tmp_path):
    plan = order_of(tmp_path).plan
    again: MixerConfig[int] = MixerConfig.from_json(json.loads(json.dumps(plan.to_json())))
    assert plain(again) == plain(plan)
    assert (again.ratio, again.schedule) == (plan.ratio, plan.schedule)
    batch_counter, other = plan.batch_counter, again.batch_counter
    assert batch_counter is not None
    assert other is not None
    assert (other.file, other.total, other.start) == (
        batch_counter.file,
        batch_counter.total,
        batch_counter.start,
    )
    tables = [EpochPlan(one, 2, 5).table(1) for one in (plan, again)]
    assert np.array_equal(tables[0].real, tables[1].real)
    for ratio in ((1 / 3, 2 / 7), (1234567.0, 7654321.0), (1.0, 0.0)):
        simple: MixerConfig[str] = MixerConfig(None, Ratio(*ratio), chosen=("a", "b"), strict=True)
        assert MixerConfig.from_json(json.loads(json.dumps(simple.to_json()))) == simple


def test_paths_are_absolute_in_json(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own: dict[str, Any] = {"batch_counter": BatchCounter("clock", 1), "log": Path("log")}
    document = MixerConfig[int](Path("bank"), Ratio(1, 1), **own).to_json()
    found = [document["bank"], document["log"], document["batch_counter"][0]]
    assert found == [str(tmp_path / name) for name in ("bank", "log", "clock")]


def test_an_order_comes_back_from_its_file(tmp_path):
    order = order_of(tmp_path)
    (tmp_path / ORDER).write_text(json.dumps(order.to_json()))
    again = TrainingOrder.read(tmp_path / ORDER)
    assert replace(again, plan=plain(again.plan)) == replace(order, plan=plain(order.plan))
    assert again.to_json() == order.to_json()
    assert (len(again.made()), again.made().rim, again.made().cases) == (6, 2, order.cases)


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[TrainingOrder], str]:
    def text(order: TrainingOrder) -> str:
        document = json.loads(json.dumps(order.to_json()))
        change(document)
        return json.dumps(document)

    return text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (damaged(lambda doc: doc.pop("plan")), "KeyError: 'plan'"),
        (damaged(lambda doc: doc["plan"].update(other=1)), "TypeError: .*other"),
        (damaged(lambda doc: doc["plan"].update(chosen=[])), "needs the cases chosen"),
        (damaged(lambda doc: doc["plan"].update(batch_counter=["c", 0, 0])), "clock: 0 batches"),
        (damaged(lambda doc: doc.update(cases=["a"])), "TypeError"),
        (damaged(lambda doc: doc["cases"][0].update(units=[1])), "TypeError"),
        (damaged(lambda doc: doc.update(count="6")), "count: '6', expected int"),
        (lambda order: "", ".*start anew"),
        (lambda order: "[]", ".*start anew"),
    ],
    ids=range(9),
)
def test_a_damaged_order_is_named_once(tmp_path, text, words):
    path = tmp_path / ORDER
    with pytest.raises(IntegrityFault, match=f"^{path}: .*start anew"):
        TrainingOrder.read(path)
    path.write_text(text(order_of(tmp_path)))
    with pytest.raises(IntegrityFault, match=f"^{path}: .*{words}") as caught:
        TrainingOrder.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


def told(folder: Path) -> list[Any]:
    text = (folder / PROGRESS).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def tell_many(progress: ProgressWriter, who: int, start: Any) -> None:
    start.wait()
    for number in range(300):
        progress.tell(job={"who": who, "number": number, "sample": "x" * (number % 90)})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_lines_are_whole_whoever_writes(tmp_path, method):
    progress = ProgressWriter(tmp_path / PROGRESS)
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
    found = told(tmp_path)
    assert (found[0], found[-1]) == ({"step": [1.0, 2.0]}, {"trained": 0})
    for who in range(2):
        numbers = [line["job"]["number"] for line in found[1:-1] if line["job"]["who"] == who]
        assert numbers == list(range(300))


def test_numbers_of_numpy_are_numbers(tmp_path):
    progress = pickle.loads(pickle.dumps(ProgressWriter(tmp_path / PROGRESS)))
    progress.tell(epoch=np.int64(1), metrics={"dice": np.float32(0.5)})
    assert told(tmp_path) == [{"epoch": 1, "metrics": {"dice": 0.5}}]
