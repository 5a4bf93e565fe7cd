import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.run_folder import read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.data.views import SourceView
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PerChannel, PerClass, asked_for
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.composite import part_seed
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.expected import raises_fault
from tests.offered import offered
from tests.sampling import composites
from tests.sampling.composites import NOISE, words

CLASSES = ("cyst", "metastasis", "rare one")
REQUEST = SourceRequest("kinds", "2")
BOTH = PerClass("dcgan", "cyst,metastasis")


class Kinds(ToySource):
    """Toy cases of three kinds: 8, 3 and one to train on; of ``kinds:all`` none is held out.

    A metastasis is brighter by 5 in both channels.
    """

    def __init__(self, where: str = "2") -> None:
        super().__init__(2)
        self.request = SourceRequest("kinds", where)

    name = property(lambda self: f"kinds:{self.request.where}")
    held_out_ids = property(lambda self: tuple(self._cases)[len(self.train_ids) :])

    @property
    def schema(self) -> Any:
        return replace(super().schema, classes=CLASSES)

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[: 16 if self.request.where == "all" else 12]

    def kind(self, case_id: str) -> int:
        number = int(case_id[-2:])
        return 2 if number == 7 else int(number % 3 == 1)

    def load(self, case_id: str) -> Any:
        number = self.kind(case_id)
        case: Any = super().load(case_id)
        bright = np.where(case.labels >= 0, np.float32(5 * (number == 1)), np.float32(0))
        return replace(case, image=case.image + bright, label_class=number)


@pytest.fixture(scope="module", autouse=True)
def kinds(toy_source):
    with offered("kinds", sources={"kinds": lambda request: Kinds(request.where)}):
        yield


def compose(out: Path, spec: Any = BOTH, **changes: Any) -> Any:
    return composites.compose(out, spec, "kinds:2", **changes)


def fit_gan(request: SourceRequest, out: Path, **own: str) -> Path:
    options: dict[str, Any] = {"edits": None, "device": "cpu", "reporter": NullReporter()}
    fit("dcgan", request, out, settings=words({**NOISE, **own}), **options)
    return out


@pytest.fixture(scope="module")
def both(kinds, tmp_path_factory) -> Path:
    """A tanh GAN for each of two of the three classes, which draws masks too. Do not change it."""
    out: Path = tmp_path_factory.mktemp("both") / "run"
    compose(out, with_mask=True, output="tanh")
    return out


def drawer(folder: Path, **options: Any) -> Any:
    return Sampler(load_run(folder, "cpu"), Kinds(), SampleRequest(**options))


CHAIN = {"parts": [{"name": "a", "generator": "dcgan", "channels": ["first"]}]}


@pytest.mark.parametrize(
    ("spec", "settings", "expected"),
    [
        (PerClass("dcgan"), {}, "fitting.class-with-few-cases"),
        (PerClass("dcgan", "cyst,metastases"), {}, "folds.class-unknown"),
        (PerClass("dcgan", "cyst,cyst+metastasis"), {}, "fitting.class-named-twice"),
        (PerClass("cgan3d", "cyst"), {"given": "first"}, "fitting.class-part-not-whole-samples"),
        (PerClass("cgan3d-labels", "cyst"), {}, "fitting.class-part-not-whole-samples"),
        (PerClass("cgan", "cyst"), {}, "registry.name-unknown"),
        (PerClass("dcgan", "cyst"), {"widht": "4"}, "options.setting-unknown"),
        # Each channel would show another anatomy.
        (PerChannel("dcgan"), words(NOISE), "fitting.part-draws-own-anatomy"),
        (ChainSpec.model_validate(CHAIN), words(NOISE), "fitting.part-draws-own-anatomy"),
    ],
)
def test_classes_that_cannot_be_drawn_are_refused_in_one_line(spec, settings, expected):
    with raises_fault(expected) as refusal:
        make_plan(spec, REQUEST, settings, None)
    assert "\n" not in str(refusal.value)


def test_classes_that_are_not_there_or_split_with_channels_are_refused(tmp_path):
    with raises_fault("folds.no-classes"):
        make_plan(PerClass("dcgan"), SourceRequest("toy", "2"), {}, None)
    for name, channels, classes, expected in (
        ("dcgan", "each", "each", "fitting.per-class-with-per-channel"),
        ("chain.yaml", None, "each", "fitting.chain-defines-its-parts"),
        ("chain.yaml", "each", None, "fitting.chain-defines-its-parts"),
    ):
        with raises_fault(expected):
            asked_for(name, channels, classes)
    with raises_fault("sampling.no-label-maps-to-edit"):
        compose(tmp_path / "run", edits=("flip",))
    assert list(tmp_path.iterdir()) == []


def test_classes_may_be_joined_and_those_without_a_training_case_are_left_out(monkeypatch):
    plan = make_plan(PerClass("dcgan", "metastasis,cyst+rare one"), REQUEST, {}, None)
    assert [(part.name, part.classes) for part in plan.parts] == [
        ("metastasis", ("metastasis",)),
        ("cyst+rare_one", ("cyst", "rare one")),
    ]
    monkeypatch.setattr(Kinds, "kind", lambda self, case_id: int(case_id[-2:]) % 2)
    assert list(PerClass("dcgan").classes(Kinds())) == ["cyst", "metastasis"]


def test_each_part_has_seen_its_class_and_the_whole_all_of_them(both):
    view = SourceView(Kinds(), {"classes": ["metastasis"]})
    assert (view.train_ids, view.held_out_ids) == (("toy_01", "toy_04", "toy_10"), ("toy_13",))
    seen = {name: load_run(both / "parts" / name, "cpu").lineage for name in BOTH.groups.split(",")}
    assert [case.id for case in seen["metastasis"].cases] == ["toy_01", "toy_04", "toy_10"]
    whole = load_run(both, "cpu").lineage
    assert set(whole.cases) == {case for one in seen.values() for case in one.cases}
    assert (len(whole.cases), whole.ancestors) == (11, ())


def test_a_beginning_that_has_seen_a_held_out_case_of_another_class_is_refused(tmp_path):
    """A generator that starts from it would have seen it too, whatever class it is to draw."""
    request = SourceRequest("kinds", "all", view={"classes": ["metastasis"]})
    old = fit_gan(request, tmp_path / "old")
    with raises_fault("lineage.held-out-case-seen"):
        compose(tmp_path / "run", PerClass("dcgan", "cyst"), init_from=old)


def test_parts_are_ordinary_runs_under_one_folder(both):
    manifest = read_manifest(both)
    assert [(p["folder"], p["classes"]) for p in manifest["parts"]] == [
        ("parts/cyst", ["cyst"]),
        ("parts/metastasis", ["metastasis"]),
    ]
    told = {key: manifest[key] for key in ("generator", "complete", "edits")}
    assert told == {"generator": "composite", "complete": True, "edits": []}
    capabilities = load_run(both, "cpu").generator.capabilities.to_json()
    assert capabilities == manifest["capabilities"]
    assert (capabilities["takes"], capabilities["draws"]) == (["class"], "both")
    assert (both / "samples" / "composite.png").read_bytes()[:4] == b"\x89PNG"


def test_the_part_of_its_class_draws_a_sample_in_units_of_its_own(both):
    whole = drawer(both)
    highest = []
    for number, name in enumerate(("cyst", "metastasis")):
        part = load_run(both / "parts" / name, "cpu")
        highest.append(max(high for _, high in part.space.window or ()))
        index = next(i for i in range(50) if whole.sampler.draw(i).label_class == number)
        (sample,) = whole.draw(index, 1)
        assert sample.provenance["class"] == name
        assert name == CLASSES[Kinds().kind(sample.provenance["beside"]["case"])]
        condition = whole.sampler.draw(index)
        seed = part_seed(condition.latent_seed, number)
        alone: Any = part.generator.sample([condition], [seed])[0]
        assert np.array_equal(sample.image, part.space.to_host(alone).image)
        assert np.array_equal(sample.labels, alone.labels)
        assert sample.provenance["parts"] == {name: part.run_id}
    # One window for all would leave a dark class a part of its range.
    assert highest[1] > highest[0] + 3
    assert whole.run.space.window is None


def test_classes_are_as_frequent_as_in_training(both):
    sampler = drawer(both).sampler
    found = [sampler.draw(index).label_class for index in range(300)]
    assert found.count(1) / 300 == pytest.approx(3 / 11, abs=0.08)
    assert 2 not in found


def test_a_part_judges_its_samples_in_units_of_its_own(both, monkeypatch):
    whole = drawer(both)
    parts = {part.name: part.run for part in whole.run.generator.parts}
    for name, part in parts.items():
        monkeypatch.setattr(
            part.generator,
            "reject_reason",
            lambda s, name=name: f"{name}: {np.abs(s.image).max():.3f}",
        )
    for sample in whole.draw_raw(0, 4):
        name, _, most = sample.provenance["reject_reason"].partition(": ")
        assert name == sample.provenance["class"]
        assert 0 < float(most) <= 1


def test_only_one_class_may_be_asked_for_and_only_one_that_is_drawn(both):
    samples = drawer(both, classes=("metastasis",)).draw(0, 5)
    assert {sample.provenance["class"] for sample in samples} == {"metastasis"}
    assert len({sample.provenance["beside"]["case"] for sample in samples}) > 1
    with raises_fault("folds.class-without-training-case"):
        drawer(both, classes=("rare one",))
    condition = replace(drawer(both).sampler.draw(0), label_class=2)
    with raises_fault("sampling.class-without-part"):
        load_run(both, "cpu").generator.sample([condition], [0])


def test_a_class_is_asked_of_a_generator_that_is_told_classes_and_of_no_other(tmp_path):
    told = fit_gan(REQUEST, tmp_path / "told", condition="class")
    samples = drawer(told, classes=("rare one", "metastasis")).draw(0, 12)
    assert {sample.provenance["class"] for sample in samples} == {"rare one", "metastasis"}
    plain = fit_gan(REQUEST, tmp_path / "plain", condition="none")
    with raises_fault("sampling.class-not-selectable"):
        drawer(plain, classes=("cyst",))
    assert "class" not in drawer(plain).draw(0, 1)[0].provenance


def test_the_command_line_fits_samples_and_shows_classes(succeed, tmp_path):
    out, cpu = tmp_path / "run", ("--device", "cpu", "--json")
    options = [f"--set={key}={value}" for key, value in words(NOISE).items()]
    asked = ("--per-class", BOTH.groups, "--data", "kinds:2", "-o", out)
    result = succeed("fit", "dcgan", *asked, *cpu, *options)
    assert list(json.loads(result.stdout)["parts"]) == ["cyst", "metastasis"]
    succeed("sample", out, "-n", 3, "--class", "cyst", *cpu)
    told = json.loads((out / "samples" / "seed-0-cyst" / "provenance.json").read_text())["samples"]
    assert [one["class"] for one in told.values()] == ["cyst"] * 3
