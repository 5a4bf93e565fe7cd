"""One generator per class: what each sees, what they draw together, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.run_folder import RunFolder, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.data.views import SourceView
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PerChannel, PerClass, asked_for
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.composite import part_seed
from gansynth.sampling.describe import describe_run
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.offered import offered

TINY = {"width": 4, "max_width": 8, "latent": 4, "batch_size": 4, "diversity": False}
SMALL = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "batch_size": 1}
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

    @property
    def name(self):
        return f"kinds:{self.request.where}"

    @property
    def schema(self):
        return replace(super().schema, classes=CLASSES)

    @property
    def train_ids(self):
        return tuple(self._cases)[: 16 if self.request.where == "all" else 12]

    @property
    def held_out_ids(self):
        return tuple(self._cases)[len(self.train_ids) :]

    def kind(self, case_id: str) -> int:
        number = int(case_id[-2:])
        return 2 if number == 7 else int(number % 3 == 1)

    def load(self, case_id: str):
        number = self.kind(case_id)
        case: Any = super().load(case_id)
        bright = np.where(case.labels >= 0, np.float32(5 * (number == 1)), np.float32(0))
        return replace(case, image=case.image + bright, label_class=number)


@pytest.fixture(scope="module", autouse=True)
def kinds(toy_source):
    with offered("kinds", sources={"kinds": lambda request: Kinds(request.where)}):
        yield


def compose(out: Path, spec: Any = BOTH, *, edits: Any = None, **changes: Any) -> Any:
    passed = {k: changes.pop(k) for k in ("init_from", "dry_run", "resume") if k in changes}
    own = TINY if spec.generator == "dcgan" else SMALL
    return fit_composite(
        spec,
        REQUEST,
        out,
        settings={k: str(v) for k, v in {"steps": 0, **own, **changes}.items()},
        edits=edits,
        device="cpu",
        reporter=NullReporter(),
        **passed,
    )


def fit_gan(request: SourceRequest, out: Path, **own: str) -> None:
    settings = {k: str(v) for k, v in {"steps": 0, **TINY, **own}.items()}
    options: dict[str, Any] = {"edits": None, "device": "cpu", "reporter": NullReporter()}
    fit("dcgan", request, out, settings=settings, **options)


@pytest.fixture(scope="module")
def both(kinds, tmp_path_factory) -> Path:
    """A tanh GAN for each of two of the three classes, which draws masks too. Do not change it."""
    out: Path = tmp_path_factory.mktemp("both") / "run"
    compose(out, with_mask=True, output="tanh")
    return out


def drawer(folder: Path, **options: Any) -> Sampler:
    return Sampler(load_run(folder, "cpu"), Kinds(), SampleRequest(**options))


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        (PerClass("dcgan"), {}, r"1 training case\(s\) of class 'rare one'.*leave it out \(--per"),
        (PerClass("dcgan", "cyst,metastases"), {}, "class 'metastases' is unknown.*'metastasis'"),
        (PerClass("dcgan", "cyst,cyst+metastasis"), {}, "class 'cyst' is named twice"),
        (PerClass("cgan3d", "cyst"), {"given": "first"}, "expected parts with whole samples"),
        (PerClass("cgan3d", "cyst"), {"target": "labels", "given": "first"}, "whole samples"),
        (PerClass("cgan", "cyst"), {}, "generator 'cgan' is unknown"),
        (PerClass("dcgan", "cyst"), {"widht": "4"}, "Did you mean 'width'"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_drawn_are_refused_in_one_line(spec, settings, message):
    with pytest.raises(UsageFault, match=message) as refusal:
        make_plan(spec, REQUEST, settings, None)
    assert "\n" not in str(refusal.value)


def test_classes_that_are_not_there_or_split_with_channels_are_refused():
    with pytest.raises(UsageFault, match=r"--per-class: .*toy:2 have no .*--read classes=yes"):
        make_plan(PerClass("dcgan"), SourceRequest("toy", "2"), {}, None)
    for name, channels in (("dcgan", "each"), ("chain.yaml", None)):
        with pytest.raises(UsageFault, match="--per-class each: "):
            asked_for(name, channels, "each")


def test_edits_of_what_draws_its_own_labels_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageFault, match="--edit flip: dcgan draws no label maps"):
        compose(tmp_path / "run", edits=("flip",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", ["channel", "chain"])
def test_channels_that_are_drawn_from_noise_are_refused(spec):
    """Each would show another anatomy."""
    chain = {"parts": [{"name": "a", "generator": "dcgan", "channels": ["first"]}]}
    asked = PerChannel("dcgan") if spec == "channel" else ChainSpec.model_validate(chain)
    with pytest.raises(UsageFault, match="anatomy would differ"):
        make_plan(asked, REQUEST, {k: str(v) for k, v in TINY.items()}, None)


def test_classes_may_be_joined_and_those_without_a_training_case_are_left_out():
    class Empty(Kinds):
        def kind(self, case_id):
            return super().kind(case_id) % 2

    assert list(PerClass("dcgan").classes(Empty())) == ["cyst", "metastasis"]
    plan = make_plan(PerClass("dcgan", "metastasis,cyst+rare one"), REQUEST, {}, None)
    assert [(part.name, part.classes) for part in plan.parts] == [
        ("metastasis", ("metastasis",)),
        ("cyst+rare_one", ("cyst", "rare one")),
    ]
    assert plan.view == {}


def test_a_view_shows_the_cases_of_some_classes():
    view = SourceView(Kinds(), {"classes": ["metastasis"]})
    assert view.train_ids == ("toy_01", "toy_04", "toy_10")
    assert view.held_out_ids == ("toy_13",)
    assert (view.schema, view.header("toy_04").label_class) == (Kinds().schema, 1)
    assert view.load("toy_04").label_class == 1


def test_each_part_has_seen_its_class_and_the_whole_all_of_them(both):
    seen = {name: load_run(both / "parts" / name, "cpu").lineage for name in BOTH.groups.split(",")}
    assert [case.id for case in seen["metastasis"].cases] == ["toy_01", "toy_04", "toy_10"]
    whole = load_run(both, "cpu").lineage
    assert set(whole.cases) == {case for one in seen.values() for case in one.cases}
    assert (len(whole.cases), whole.ancestors) == (11, ())


def test_a_beginning_that_has_seen_a_held_out_case_of_another_class_is_refused(tmp_path):
    """A generator that starts from it would have seen it too, whatever class it is to draw."""
    request = SourceRequest("kinds", "all", view={"classes": ["metastasis"]})
    fit_gan(request, tmp_path / "old")
    with pytest.raises(IntegrityFault, match=r"toy_13 \(same content as toy_13\)"):
        compose(tmp_path / "run", PerClass("dcgan", "cyst"), init_from=tmp_path / "old")


def test_parts_are_ordinary_runs_under_one_folder(both):
    manifest = read_manifest(both)
    assert [(p["folder"], p["classes"]) for p in manifest["parts"]] == [
        ("parts/cyst", ["cyst"]),
        ("parts/metastasis", ["metastasis"]),
    ]
    told = {key: manifest[key] for key in ("generator", "complete", "edits")}
    assert told == {"generator": "composite", "complete": True, "edits": []}
    assert load_run(both, "cpu").generator.capabilities.to_json() == manifest["capabilities"]
    assert (manifest["capabilities"]["takes"], manifest["capabilities"]["draws"]) == (
        ["class"],
        "both",
    )
    assert (both / "samples" / "composite.png").read_bytes()[:4] == b"\x89PNG"
    found = describe_run(both)
    assert (found["state"], [part["name"] for part in found["parts"]]) == (
        "complete", ["cyst", "metastasis"],
    )  # fmt: skip


def test_the_part_of_its_class_draws_a_sample_in_units_of_its_own(both):
    whole = drawer(both)
    drawn: Any = whole.draw(0, 6)
    for index, sample in enumerate(drawn):
        name = sample.provenance["class"]
        assert name == CLASSES[Kinds().kind(sample.provenance["beside"]["case"])]
        number = ("cyst", "metastasis").index(name)
        condition: Any = whole.sampler.draw(index)
        part = load_run(both / "parts" / name, "cpu")
        seed = part_seed(condition.latent_seed, number)
        alone: Any = part.generator.sample([condition], [seed])[0]
        assert np.array_equal(sample.image, part.space.to_host(alone).image)
        assert np.array_equal(sample.labels, alone.labels)
        assert sample.provenance["parts"] == {name: part.run_id}


def test_windows_are_those_of_each_class(both):
    """One window for all would leave a dark class a part of its range."""
    spaces = [load_run(both / "parts" / name, "cpu").space for name in ("cyst", "metastasis")]
    highest = [max(high for _, high in space.window or ()) for space in spaces]
    assert highest[1] > highest[0] + 3
    assert load_run(both, "cpu").space.window is None


def test_classes_are_as_frequent_as_in_training(both):
    sampler = drawer(both).sampler
    found = [sampler.draw(index).label_class for index in range(300)]
    assert found.count(1) / 300 == pytest.approx(3 / 11, abs=0.08)
    assert 2 not in found


def test_only_one_class_may_be_asked_for_and_only_one_that_is_drawn(both):
    samples = drawer(both, classes=("metastasis",)).draw(0, 5)
    assert {sample.provenance["class"] for sample in samples} == {"metastasis"}
    assert len({sample.provenance["beside"]["case"] for sample in samples}) > 1
    with pytest.raises(UsageFault, match="class 'rare one', expected among cyst, metastasis"):
        drawer(both, classes=("rare one",))
    condition = replace(drawer(both).sampler.draw(0), label_class=2)
    with pytest.raises(UsageFault, match="'rare one' is requested, but no part generates it"):
        load_run(both, "cpu").generator.sample([condition], [0])


def test_a_part_judges_its_samples_in_units_of_its_own(both, monkeypatch):
    whole = drawer(both)
    parts = {part.name: part.run for part in whole.run.generator.parts}  # type: ignore[attr-defined]
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


def test_interpolation_stays_in_a_class(both):
    whole = load_run(both, "cpu").generator
    condition = drawer(both, classes=("metastasis",)).sampler.draw(0)
    way = whole.interpolate(condition, (5, 6), 3)
    ends = whole.sample([condition, condition], [5, 6])
    assert np.allclose(way[0].image, ends[0].image, atol=1e-5)
    assert np.allclose(way[-1].image, ends[1].image, atol=1e-5)
    walk = drawer(both, classes=("metastasis",)).interpolate(0, 3)
    assert {sample.provenance["class"] for sample in walk} == {"metastasis"}


def test_label_maps_are_edited_where_they_are_asked_for(tmp_path):
    """Of cgan3d: conditions carry labels and a class."""
    compose(tmp_path / "run", PerClass("cgan3d", "cyst,metastasis"), edits=("flip",))
    whole = drawer(tmp_path / "run")
    drawn: Any = whole.draw(0, 4)
    for index, sample in enumerate(drawn):
        asked: Any = whole.sampler.draw(index).labels
        assert np.array_equal(sample.labels, asked)
        assert [step["edit"] for step in sample.provenance["edits"]] == ["flip"]
    assert RunFolder(tmp_path / "run").capabilities.from_labels


@pytest.fixture(scope="module")
def single(kinds, tmp_path_factory):
    """Fits one GAN on all classes: ``single("class")``, ``single("none")``."""

    def run(condition: str) -> Path:
        out: Path = tmp_path_factory.mktemp("single") / condition
        fit_gan(REQUEST, out, condition=condition)
        return out

    return run


def test_a_class_may_be_asked_of_a_generator_that_is_told_classes(single):
    samples = drawer(single("class"), classes=("rare one", "metastasis")).draw(0, 12)
    assert {sample.provenance["class"] for sample in samples} == {"rare one", "metastasis"}


def test_a_class_is_not_asked_of_a_generator_that_knows_none(single):
    run = single("none")
    with pytest.raises(UsageFault, match=r"--class cyst: .* with --per-class"):
        drawer(run, classes=("cyst",))
    assert "class" not in drawer(run).draw(0, 1)[0].provenance


def test_a_part_of_two_classes_does_not_know_which_it_draws(tmp_path):
    compose(tmp_path / "run", PerClass("dcgan", "cyst+metastasis"))
    with pytest.raises(UsageFault, match=r"--class cyst: .*cyst\+metastasis was fitted to draw"):
        drawer(tmp_path / "run", classes=("cyst",))
    sample = drawer(tmp_path / "run", classes=("cyst", "metastasis")).draw(0, 1)[0]
    assert sample.provenance["class"] == "cyst+metastasis"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Twenty pictures of two classes; those of ``dark`` are black but for a disc."""
    rng, (rows, columns) = np.random.default_rng(0), np.indices((16, 16))
    for number in range(20):
        name = f"{('bright', 'dark')[number % 2]}/{number:02d}.png"
        disc = (rows - 8) ** 2 + (columns - 8) ** 2 < (3 + number % 4) ** 2
        image = rng.integers(0, 20, disc.shape) + 40 * disc + 180 * (number % 2 == 0)
        for kind, array in (("images", image), ("masks", 255 * disc)):
            path = tmp_path / "set" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    folder: Path = tmp_path / "set"
    return folder


def fit_words(folder: Path, out: Path) -> list[Any]:
    options = [f"--set={key}={value}" for key, value in {"steps": 1, **TINY}.items()]
    where = ("--data", f"pictures:{folder}", "--read", "classes=yes", "-o", out, "--device", "cpu")
    return ["fit", "dcgan", "--per-class", *where, *options]


def test_the_command_line_fits_samples_and_shows_classes(run_cli, pictures, tmp_path):
    out = tmp_path / "run"
    result = run_cli(*fit_words(pictures, out), "--json")
    assert result.exit_code == 0, result.stderr
    assert list(json.loads(result.stdout)["parts"]) == ["bright", "dark"]
    words = ("sample", out, "-n", 3, "--class", "dark", "--device", "cpu", "--json")
    result = run_cli(*words)
    assert result.exit_code == 0, result.stderr
    folder = out / "samples" / "seed-0-dark"
    told = json.loads((folder / "provenance.json").read_text())["samples"]
    assert [one["class"] for one in told.values()] == ["dark"] * 3
    shown = json.loads(run_cli("show", out, "--json").stdout)
    assert [part["name"] for part in shown["parts"]] == ["bright", "dark"]
