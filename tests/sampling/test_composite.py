import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Schema
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.fitting import fit as fitting
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PartSpec, PerChannel, read_chain
from gansynth.sampling.composite import part_seed
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import viewed
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.expected import raises_fault
from tests.offered import offered
from tests.sampling import composites
from tests.sampling.composites import SMALL, words

REQUEST = SourceRequest("toy", "2")
BOTH = PerChannel("cgan3d")


class People(ToySource):
    """Other people, in another data set; ``where`` 0 has the toy cases themselves."""

    def __init__(self, seed: int) -> None:
        super().__init__(2, seed)
        self.request = SourceRequest("people", str(seed))

    name = property(lambda self: "people:healthy")
    train_ids = property(lambda self: tuple(self._cases))
    held_out_ids = property(lambda self: ())


@pytest.fixture(scope="module", autouse=True)
def people(toy_source):
    with offered("people", sources={"people": lambda request: People(int(request.where))}):
        yield


def chain(*parts: dict[str, Any]) -> ChainSpec:
    whole = [{"generator": "cgan3d", **part} for part in parts]
    return ChainSpec.model_validate({"parts": whole})


TISSUES = {
    **{"name": "tissues", "generator": "cgan3d-labels", "data": "people:1"},
    "set": {"given": ["first"]},
}
FIRST = {"name": "one", "channels": ["first"]}
SECOND = {"name": "two", "set": {"given": ["first"], "output": "tanh"}}
CHAIN = chain(TISSUES, {**FIRST, "labels_by": "tissues"}, {**SECOND, "labels_by": "tissues"})


def compose(out: Path, spec: Any = BOTH, *, edits: Any = ("flip",), **changes: Any) -> Any:
    return composites.compose(out, spec, "toy:2", edits=edits, **changes)


@pytest.fixture(scope="module")
def joint(people, tmp_path_factory) -> Path:
    """One model per channel. Do not change it."""
    out: Path = tmp_path_factory.mktemp("joint") / "run"
    compose(out)
    return out


@pytest.fixture(scope="module")
def chained(people, tmp_path_factory) -> Path:
    """Tissues of other people, then the first channel, then the second given the first."""
    out: Path = tmp_path_factory.mktemp("chained") / "run"
    compose(out, CHAIN)
    return out


@pytest.fixture
def run(joint: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(joint, tmp_path / "copy"))


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """Names of the parts that are fitted from now on; after "stop" only one is."""
    seen: list[str] = []
    real = fitting.fit

    def spy(generator: str, request: SourceRequest, out: Path, **options: Any) -> Any:
        if len(seen) == 2 and seen[0] == "stop":
            raise KeyboardInterrupt
        seen.append(out.name)
        return real(generator, request, out, **options)

    monkeypatch.setattr(fitting, "fit", spy)
    return seen


def sampler(folder: Path, **options: Any) -> Any:
    return Sampler(load_run(folder, "cpu"), ToySource(2), SampleRequest(**options))


def test_what_is_set_for_all_parts_goes_to_those_that_have_it():
    """A slip goes to all, to be refused; what is typed is put over a part's own."""
    parts_own = {**FIRST, "set": {"steps": 5, "width": 8}}
    whole = ({"generator": "cgan3d", **part} for part in (TISSUES, parts_own))
    maps, images = parts = list(map(PartSpec.model_validate, whole))
    asked = {"steps": "2", "dice": "5", "output": "tanh", "widht": "8"}
    given = {"given": '["first"]'}
    assert maps.settings(asked, parts) == {**given, "steps": "2", "dice": "5", "widht": "8"}
    own = images.settings(asked, parts)
    assert own["width"] == "8"
    assert {key: own.get(key) for key in asked} == {**asked, "dice": None}


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([FIRST], "fitting.channel-without-part"),
        ([FIRST, {"name": "two"}], "fitting.channel-generated-twice"),
        ([SECOND, FIRST], "fitting.given-channel-not-generated-earlier"),
        ([{"name": "one", "channels": ["frist"]}], "views.channel-unknown"),
        ([{**FIRST, "labels_by": "two"}], "fitting.labels-by-not-earlier-labeller"),
        ([FIRST, {**SECOND, "labels_by": "one"}], "fitting.labels-by-not-earlier-labeller"),
        ([{"name": "one", "set": {"context": 2}}], "fitting.part-takes-context-channels"),
        ([{"name": "one", "set": {"widht": 8}}], "options.setting-unknown"),
        ([{"name": "one", "generator": "cgan"}], "registry.name-unknown"),
        ([{"name": "one", "data": "toy:3"}], "fitting.part-arrays-differ"),
        (
            [TISSUES, {**TISSUES, "name": "more"}, {**FIRST, "labels_by": "tissues"},
             {**SECOND, "labels_by": "more"}],
            "fitting.two-parts-label",
        ),
    ],
)  # fmt: skip
def test_parts_that_cannot_draw_a_sample_are_refused_by_name(parts, expected):
    with raises_fault(expected):
        make_plan(chain(*parts), REQUEST, {}, None)


@pytest.mark.parametrize("groups", ["first", "first,first,second", "first,third", "first+second+"])
def test_channels_are_grouped_in_the_order_asked_for_and_each_once(groups):
    plan = make_plan(PerChannel("cgan3d", "second,first"), REQUEST, {}, None)
    assert [part.draws for part in plan.parts] == [("second",), ("first",)]
    with raises_fault("fitting.per-channel-not-every-channel"):
        make_plan(PerChannel("cgan3d", groups), REQUEST, {}, None)


def test_a_channels_name_becomes_a_folders_name_of_its_own():
    schema = Schema(("T1 / Gd", "(FLAIR)"), {"background": 0}, (1.0, 1.0), "HW")
    assert [part.name for part in PerChannel("cgan3d").chain(schema).parts] == ["T1_Gd", "c_FLAIR_"]
    with raises_fault("fitting.two-parts-of-one-name"):
        PerChannel("cgan3d").chain(replace(schema, channels=("T1/a", "T1 A")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parts: [", "yaml.not-yaml"),
        ("parts: []", "fitting.chain-file-malformed"),
        ("parts: [{name: a, generator: g, chanels: [T1]}]", "fitting.chain-file-malformed"),
        ("parts: [{name: ../a, generator: g}]", "fitting.chain-file-malformed"),
        (
            "parts: [{name: a, generator: g}, {name: A, generator: g}]",
            "fitting.two-parts-of-one-name",
        ),
    ],
)
def test_a_bad_chain_is_one_line_that_names_the_key(tmp_path, text, expected):
    (tmp_path / "chain.yaml").write_text(text)
    with raises_fault(expected) as refusal:
        read_chain(tmp_path / "chain.yaml")
    assert "\n" not in str(refusal.value)


def test_own_data_with_held_out_cases_are_refused_before_anything_is_fitted(tmp_path):
    spec = chain({**TISSUES, "data": "people:0"}, FIRST, SECOND)
    with raises_fault("lineage.held-out-case-seen"):
        compose(tmp_path / "run", spec)
    assert list(tmp_path.iterdir()) == []


# -- what parts have seen --------------------------------------------------------------------------


def test_drawn_labels_fill_the_background_below_the_sources_own(chained):
    own: Any = ToySource(2)
    views: list[Any] = [
        viewed(own, {"labels_by": "parts/tissues", "home": str(chained)}) for _ in range(2)
    ]
    one, again = views
    labels, before = one.load("toy_03").labels, own.load("toy_03").labels
    assert np.array_equal(labels[before != 0], before[before != 0])
    assert set(np.unique(labels[before == 0])) <= {0, 3, 4}
    assert one.schema.labels == {**own.schema.labels, "tissues:one": 3, "tissues:two": 4}
    assert np.array_equal(again.load("toy_03").labels, labels)
    drawn = np.array([2, -1, 0, 2, 2], np.int16)
    assert one.labeller.under(drawn).tolist() == [4, 0, 0, 4, 4]


def test_a_composite_has_seen_what_its_parts_have_and_names_no_path_of_this_machine(joint, chained):
    assert load_run(joint, "cpu").lineage == lineage_of(ToySource(2))
    names = [one.dataset for one in load_run(chained, "cpu").lineage.everyone()]
    assert names == ["toy:2", "people:healthy"]
    manifest = read_manifest(chained / "parts" / "one")
    assert manifest["request"]["view"]["labels_by"] == "../tissues"
    assert [a["dataset"] for a in manifest["lineage"]["ancestors"]] == ["people:healthy"]
    texts = [
        path.read_text() for ending in ("json", "yaml") for path in chained.rglob(f"*.{ending}")
    ]
    assert len(texts) > 8
    assert not any(str(chained) in text for text in texts)


def test_another_labeller_is_refused(chained, tmp_path):
    shutil.copytree(chained, tmp_path / "run")
    with (tmp_path / "run" / "parts" / "tissues" / "manifest.json").open("a") as stream:
        stream.write(" ")
    part = load_run(tmp_path / "run" / "parts" / "one", "cpu")
    with raises_fault("sampling.label-run-changed"):
        Sampler(part, ToySource(2))


def exchange(run: Path) -> None:
    part = run / "parts" / "second"
    write_manifest(part, {**read_manifest(part), "steps": 2})


def lead_out(run: Path) -> None:
    manifest = read_manifest(run)
    manifest["parts"][0]["folder"] = "../elsewhere"
    write_manifest(run, manifest)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (exchange, "files.checksum-differs"),
        (lead_out, "files.path-leads-out-of-folder"),
    ],
)
def test_a_part_that_is_not_what_it_was_is_refused(run, change: Callable[[Path], None], expected):
    change(run)
    with raises_fault(expected):
        load_run(run, "cpu")


# -- resuming --------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_the_parts_that_are_finished(joint, fits, tmp_path):
    fits.append("stop")
    with pytest.raises(KeyboardInterrupt):
        compose(tmp_path / "run")
    assert [bool(p["manifest_sha256"]) for p in read_manifest(tmp_path / "run")["parts"]] == [1, 0]
    with raises_fault("sampling.part-not-fitted"):
        load_run(tmp_path / "run")
    del fits[:]
    compose(tmp_path / "run")
    assert fits == ["second"]
    for one, other in zip(*(sampler(f).draw(0, 2) for f in (tmp_path / "run", joint)), strict=True):
        assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"width": 8}, "fitting.folder-holds-other-run"),
        ({"edits": ("shift",)}, "fitting.folder-holds-other-run"),
        ({"spec": PerChannel("cgan3d", "first+second")}, "fitting.folder-holds-other-run"),
        ({"resume": False}, "fitting.folder-holds-run"),
    ],
)
def test_another_run_is_refused(run, fits, changes, expected):
    with raises_fault(expected):
        compose(run, **changes)
    assert fits == []


def test_what_drew_label_maps_is_not_trained_further(chained, fits, tmp_path):
    shutil.copytree(chained, tmp_path / "run")
    with raises_fault("fitting.labelling-part-changed"):
        compose(tmp_path / "run", CHAIN, steps=2)
    assert fits == []


def test_every_part_may_start_from_a_composites_part_of_the_same_name(joint, tmp_path):
    compose(tmp_path / "run", init_from=joint)
    for name in ("first", "second"):
        record = read_manifest(tmp_path / "run" / "parts" / name)["init_from"]
        assert record["run_id"] == read_manifest(joint / "parts" / name)["run_id"]


@pytest.mark.slow
def test_a_dry_run_measures_every_part_and_writes_nothing(tmp_path):
    report = compose(tmp_path / "run", CHAIN, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert list(report["parts"]) == ["tissues", "one", "two"]
    assert report["estimated_minutes"] >= 0


# -- samples ---------------------------------------------------------------------------------------


def test_every_channel_is_its_parts_for_the_same_labels(joint):
    drawer = sampler(joint)
    condition = drawer.sampler.draw(0)
    sample = drawer.run.generator.sample([condition], [7])[0]
    for number, name in enumerate(("first", "second")):
        part = load_run(joint / "parts" / name, "cpu").generator
        alone = part.sample([condition], [part_seed(7, number)])[0]
        assert np.array_equal(sample.image[number], alone.image[0])
    assert np.array_equal(sample.labels, condition.labels)
    assert len({part_seed(seed, number) for seed in range(50) for number in range(4)}) == 200


def test_a_part_is_given_what_was_drawn_before_in_its_own_units(chained, monkeypatch):
    drawer = sampler(chained)
    one, two = (part.run for part in drawer.run.generator.parts)
    told: list[Any] = []
    draw = two.generator.sample

    def spy(conditions: Any, seeds: Any) -> Any:
        told.extend(conditions)
        return draw(conditions, seeds)

    monkeypatch.setattr(two.generator, "sample", spy)
    sample = drawer.draw(0, 1)[0]
    case = Case("", "", np.concatenate([sample.image[:1]] * 2))
    expected = two.space.to_generator(case).image[:1]
    assert np.allclose(told[0].given, expected, atol=1e-6)
    assert np.abs(told[0].given).max() <= 1
    assert one.space.window is None


def test_samples_have_the_sources_labels_and_channels_whatever_the_batch(chained):
    drawer = sampler(chained)
    samples = drawer.draw(0, 3)
    for index, sample in enumerate(samples):
        sample.validate(ToySource(2).schema)
        asked = drawer.sampler.draw(index).labels
        assert np.array_equal(sample.labels, np.where(asked > 2, 0, asked))
    assert drawer.source.schema == ToySource(2).schema
    assert drawer.sampler.schema.labels["tissues:one"] == 3
    (alone,) = sampler(chained).draw(2, 1)
    assert np.array_equal(alone.image, samples[2].image)
    assert alone.provenance == samples[2].provenance


def test_the_command_line_fits_and_samples_a_chain(run_cli, tmp_path):
    (tmp_path / "chain.yaml").write_text(
        "edits: [flip]\n"
        "parts:\n"
        "  - {name: one, generator: cgan3d, channels: [first]}\n"
        "  - {name: two, generator: cgan3d, set: {given: first}}\n"
    )
    options = [f"--set={key}={value}" for key, value in words(SMALL).items()]
    chain, out = tmp_path / "chain.yaml", tmp_path / "run"
    fit = ("fit", chain, "--data", "toy:2", "-o", out, "--device", "cpu", *options)
    assert run_cli(*fit).exit_code == 0
    assert run_cli("sample", out, "-n", 1, "--sheet", "--device", "cpu").exit_code == 0
    assert list(out.rglob("sheet.png"))
    assert "fitted already, kept" in run_cli(*fit).stderr
