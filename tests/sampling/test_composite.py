import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.run_folder import RunFolder, read_manifest, write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import SourceRequest, case_content, case_record, lineage_of
from gansynth.data.views import SourceView
from gansynth.fitting import fit as fitting
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PerChannel, asked_for, read_chain
from gansynth.fitting.setup import resolve
from gansynth.hosts.sample_source import check_learnable
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.composite import part_seed
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import LabelMapSampler, viewed
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.offered import offered

TINY = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "batch_size": 1, "precision": "fp32"}
REQUEST = SourceRequest("toy", "2")
BOTH = PerChannel("cgan3d")


class People(ToySource):
    """Other people, in another data set; ``where`` 0 has the toy cases themselves."""

    def __init__(self, seed: int) -> None:
        super().__init__(2, seed)
        self.request = SourceRequest("people", str(seed))

    @property
    def name(self):
        return "people:healthy"

    @property
    def train_ids(self):
        return tuple(self._cases)

    @property
    def held_out_ids(self):
        return ()


@pytest.fixture(scope="module", autouse=True)
def people(toy_source):
    with offered("people", sources={"people": lambda request: People(int(request.where))}):
        yield


def chain(*parts: dict[str, Any]) -> ChainSpec:
    whole = [{"generator": "cgan3d", **part} for part in parts]
    return ChainSpec.model_validate({"parts": whole})


TISSUES = {"name": "tissues", "data": "people:1", "set": {"target": "labels", "given": ["first"]}}
FIRST = {"name": "one", "channels": ["first"]}
SECOND = {"name": "two", "set": {"given": ["first"], "output": "tanh"}}
CHAIN = chain(TISSUES, {**FIRST, "labels_by": "tissues"}, {**SECOND, "labels_by": "tissues"})


class CutOptions(GeneratorOptions):
    of: tuple[str, ...] = ("first",)
    above: float = 0.0


class Cut(Generator):
    """A stranger's, without networks: label 1 is what is bright in a channel."""

    name = "cut"
    Options = CutOptions
    options: CutOptions

    @property
    def capabilities(self):
        return Capabilities(frozenset({"channels"}), "labels", self.options.of)

    def sample(self, conditions, seeds):
        bright = [(c.given, c.given[0] > self.options.above) for c in conditions]
        return [Sample(image, where.astype(np.int16)) for image, where in bright]


def compose(out: Path, spec: Any = BOTH, *, edits: Any = ("flip",), **changes: Any) -> Any:
    passed = {k: changes.pop(k) for k in ("init_from", "dry_run", "resume") if k in changes}
    return fit_composite(
        spec,
        REQUEST,
        out,
        settings={k: str(v) for k, v in {"steps": 0, **TINY, **changes}.items()},
        edits=edits,
        device="cpu",
        reporter=NullReporter(),
        **passed,
    )


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
    shutil.copytree(joint, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """Names of the parts that are fitted from now on."""
    seen: list[str] = []
    real = fitting.fit

    def spy(generator: str, request: SourceRequest, out: Path, **options: Any) -> Any:
        seen.append(out.name)
        return real(generator, request, out, **options)

    monkeypatch.setattr(fitting, "fit", spy)
    return seen


def drawn(folder: Path, **options: Any) -> list[Any]:
    return Sampler(load_run(folder, "cpu"), ToySource(2), SampleRequest(**options)).draw(0, 3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([FIRST], r"no part generates channel\(s\) second of toy:2"),
        ([FIRST, {"name": "two"}], "part 'two': part 'one' generates channel 'first' already"),
        ([SECOND, FIRST], "part 'two': given 'first': no earlier part generates it"),
        ([{"name": "one", "channels": ["frist"]}], "Did you mean 'first'"),
        ([{**FIRST, "labels_by": "two"}], "labels_by 'two': expected an earlier part that"),
        ([FIRST, {**SECOND, "labels_by": "one"}], "labels_by 'one': expected an earlier part"),
        ([{"name": "one", "set": {"context": 2}}], "context channels.*set: {'context': 0}"),
        ([{"name": "one", "set": {"widht": 8}}], "part 'one': .*Did you mean 'width'"),
        ([{"name": "one", "generator": "cgan"}], "part 'one': generator 'cgan' is unknown"),
        ([{"name": "one", "data": "toy:3"}], r"data toy:3: size is \(16, 16, 16\), that of toy:2"),
        (
            [TISSUES, {**TISSUES, "name": "more"}, {**FIRST, "labels_by": "tissues"},
             {**SECOND, "labels_by": "more"}],
            "another part has 'tissues'",
        ),
    ],
)  # fmt: skip
def test_parts_that_cannot_draw_a_sample_are_refused_by_name(parts, message):
    with pytest.raises(UsageFault, match=message):
        make_plan(chain(*parts), REQUEST, {}, None)


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ("each", [("first",), ("second",)]),
        ("second,first", [("second",), ("first",)]),
        ("first+second", [("first", "second")]),
    ],
)
def test_channels_may_be_grouped(groups, wanted):
    plan = make_plan(PerChannel("cgan3d", groups), REQUEST, {}, None)
    assert [part.draws for part in plan.parts] == wanted


@pytest.mark.parametrize("groups", ["first", "first,first,second", "first,third", "first+second+"])
def test_groups_that_are_not_the_channels_are_refused(groups):
    with pytest.raises(UsageFault, match="expected every one of first, second once"):
        make_plan(PerChannel("cgan3d", groups), REQUEST, {}, None)


def test_a_channels_name_becomes_a_folders_name_of_its_own():
    schema = Schema(("T1 / Gd", "(FLAIR)"), {"background": 0}, (1.0, 1.0), "HW")
    assert [part.name for part in PerChannel("cgan3d").chain(schema).parts] == ["T1_Gd", "c_FLAIR_"]
    with pytest.raises(UsageFault, match="two parts are named"):
        PerChannel("cgan3d").chain(replace(schema, channels=("T1/a", "T1 A")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: [", "not YAML"),
        ("- a", "all of it is"),
        ("parts: []", "parts is"),
        ("parts: [{name: a}]", r"parts\.0\.generator"),
        ("parts: [{name: a, generator: g, chanels: [T1]}]", r"parts\.0\.chanels"),
        ("parts: [{name: ../a, generator: g}]", r"parts\.0\.name is '\.\./a'"),
        ("parts: [{name: a, generator: g}, {name: A, generator: g}]", "two parts are named"),
    ],
)
def test_a_bad_chain_is_one_line_that_names_the_key(tmp_path, text, message):
    (tmp_path / "chain.yaml").write_text(text)
    with pytest.raises(UsageFault, match=message) as refusal:
        read_chain(tmp_path / "chain.yaml")
    assert "\n" not in str(refusal.value)


def test_what_is_typed_is_put_over_every_parts_own_settings():
    spec = chain({"name": "a", "set": {"steps": 5, "width": 8}})
    assert make_plan(spec, REQUEST, {"steps": "7"}, None).parts[0].settings == {
        "steps": "7",
        "width": "8",
    }
    with pytest.raises(UsageFault, match="leave one of them out"):
        asked_for("chain.yaml", "each")


def test_own_data_with_held_out_cases_are_refused_before_anything_is_fitted(tmp_path):
    spec = chain({**TISSUES, "data": "people:0"}, FIRST, SECOND)
    with pytest.raises(IntegrityFault, match=r"toy_12 \(same content as toy_12\)"):
        compose(tmp_path / "run", spec)
    assert list(tmp_path.iterdir()) == []


def test_a_view_shows_some_channels_of_the_whole_cases_record():
    source, view = ToySource(2), SourceView(ToySource(2), {"channels": ["second"]})
    assert np.array_equal(view.load("toy_03").image, source.load("toy_03").image[1:])
    assert view.schema.channels == ("second",)
    assert case_record(view, "toy_03") == case_record(source, "toy_03")
    assert case_content(view, "toy_03") == case_record(source, "toy_03").sha256
    assert lineage_of(view).cases == lineage_of(source).cases
    assert view.space.host["channels_seen"] == [
        "second"
    ]  # so it does not fit the host of the whole


def test_what_draws_labels_sees_what_it_is_given_in_the_sources_order():
    """Real images with drawn labels are no synthetic samples: no host takes them."""
    own = {"target": "labels", "given": "second,first", **{k: str(v) for k, v in TINY.items()}}
    source = resolve("cgan3d", REQUEST, own, None, "cpu").source
    assert source.schema.channels == ("first", "second")
    assert source.space.host["channels_seen"] == ["first", "second"]


def test_drawn_labels_fill_the_background_below_the_sources_own(chained):
    own: Any = ToySource(2)
    views: list[Any] = [
        viewed(own, {"labels_by": "parts/tissues", "home": str(chained)}) for _ in range(2)
    ]
    labels, before = views[0].load("toy_03").labels, own.load("toy_03").labels
    assert np.array_equal(labels[before != 0], before[before != 0])
    assert set(np.unique(labels[before == 0])) <= {0, 3, 4}
    assert views[0].schema.labels == {**own.schema.labels, "tissues:one": 3, "tissues:two": 4}
    assert np.array_equal(views[1].load("toy_03").labels, labels)
    drawn = np.array([2, -1, 0, 2, 2], np.int16)
    assert views[0].labeller.under(drawn).tolist() == [4, 0, 0, 4, 4]


def test_a_part_remembers_who_drew_its_labels_and_no_path_of_this_machine(chained):
    request = read_manifest(chained / "parts" / "one")["request"]
    assert request["view"]["labels_by"] == "../tissues"
    manifest = json.loads((chained / "parts" / "one" / "manifest.json").read_text())
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
    with pytest.raises(IntegrityFault, match="has changed since it drew the label maps"):
        Sampler(part, ToySource(2))


def test_parts_are_ordinary_runs_under_one_folder(joint):
    manifest = read_manifest(joint)
    assert [part["name"] for part in manifest["parts"]] == ["first", "second"]
    assert [part["draws"] for part in manifest["parts"]] == [["first"], ["second"]]
    assert (manifest["complete"], manifest["generator"]) == (True, "composite")
    for name in ("first", "second"):
        assert load_run(joint / "parts" / name, "cpu").schema.channels == (name,)
    assert (joint / "samples" / "composite.png").read_bytes()[:4] == b"\x89PNG"


def test_a_composite_has_seen_what_its_parts_have(joint, chained):
    assert load_run(joint, "cpu").lineage == lineage_of(ToySource(2))
    names = [one.dataset for one in load_run(chained, "cpu").lineage.everyone()]
    assert names == ["toy:2", "people:healthy"]


def exchange(run: Path) -> None:
    part = run / "parts" / "second"
    write_manifest(part, {**read_manifest(part), "steps": 2})


def lose(run: Path) -> None:
    (run / "parts" / "first" / read_manifest(run / "parts" / "first")["weights"]["path"]).unlink()


def lead_out(run: Path) -> None:
    manifest = read_manifest(run)
    manifest["parts"][0]["folder"] = "../elsewhere"
    write_manifest(run, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange, r"second/manifest\.json: SHA-256 is .*composite's"),
        (lose, "of no file"),
        (lead_out, "leads out of"),
    ],
)
def test_a_part_that_is_not_what_it_was_is_refused(run, change, message):
    change(run)
    with pytest.raises(IntegrityFault, match=message):
        load_run(run, "cpu")


def test_an_interrupted_run_keeps_the_parts_that_are_finished(joint, fits, monkeypatch, tmp_path):
    real = fitting.fit

    def stop(generator: str, request: SourceRequest, out: Path, **options: Any) -> Any:
        if out.name == "second":
            raise KeyboardInterrupt
        return real(generator, request, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            compose(tmp_path / "run")
    assert [bool(p["manifest_sha256"]) for p in read_manifest(tmp_path / "run")["parts"]] == [1, 0]
    with pytest.raises(UsageFault, match="part 'second' is not fitted yet"):
        load_run(tmp_path / "run")
    del fits[:]
    compose(tmp_path / "run")
    assert fits == ["second"]
    assert [s.image.tolist() for s in drawn(tmp_path / "run")] == [
        s.image.tolist() for s in drawn(joint)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 8}, r"parts\.first\.set\.width is '8', was '4'"),
        ({"edits": ("shift",)}, r"edits is \['shift'\]"),
        ({"spec": PerChannel("cgan3d", "first+second")}, r"parts\.first"),
        ({"resume": False}, "holds a run already"),
    ],
)
def test_another_run_is_refused(run, fits, changes, message):
    with pytest.raises(UsageFault, match=message):
        compose(run, **changes)
    assert fits == []


def test_what_drew_label_maps_is_not_trained_further(chained, fits, tmp_path):
    shutil.copytree(chained, tmp_path / "run")
    with pytest.raises(UsageFault, match="part 'tissues' has changed, or would be trained further"):
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


def test_every_channel_is_its_parts_for_the_same_labels(joint):
    whole = load_run(joint, "cpu").generator
    drawer = Sampler(load_run(joint, "cpu"), ToySource(2))
    condition: Any = drawer.sampler.draw(0)
    sample: Any = whole.sample([condition], [7])[0]
    for number, name in enumerate(("first", "second")):
        part = load_run(joint / "parts" / name, "cpu").generator
        alone = part.sample([condition], [part_seed(7, number)])[0]
        assert np.array_equal(sample.image[number], alone.image[0])
    assert np.array_equal(sample.labels, condition.labels)
    assert len({part_seed(seed, number) for seed in range(50) for number in range(4)}) == 200


def test_a_sample_is_the_same_whatever_the_batch(chained):
    together = drawn(chained)
    drawer = Sampler(load_run(chained, "cpu"), ToySource(2))
    for index in (2, 0):
        alone = drawer.draw(index, 1)[0]
        assert np.array_equal(alone.image, together[index].image)
        assert alone.provenance == together[index].provenance


def test_a_part_is_given_what_was_drawn_before_in_its_own_units(chained, monkeypatch):
    run = load_run(chained, "cpu")
    one, two = (part.run for part in run.generator.parts)  # type: ignore[attr-defined]
    told: list[Any] = []
    draw = two.generator.sample

    def spy(conditions: Any, seeds: Any) -> Any:
        told.extend(conditions)
        return draw(conditions, seeds)

    monkeypatch.setattr(two.generator, "sample", spy)
    sample = Sampler(run, ToySource(2)).draw(0, 1)[0]
    case = Case("", "", np.concatenate([sample.image[:1]] * 2))
    expected = two.space.to_generator(case).image[:1]
    assert np.allclose(told[0].given, expected, atol=1e-6)
    assert np.abs(told[0].given).max() <= 1
    assert one.space.window is None


def test_samples_have_the_sources_labels_and_channels(chained):
    drawer: Any = Sampler(load_run(chained, "cpu"), ToySource(2))
    for index, sample in enumerate(drawer.draw(0, 6)):
        sample.validate(ToySource(2).schema)
        asked = drawer.sampler.draw(index).labels
        assert np.array_equal(sample.labels, np.where(asked > 2, 0, asked))
    assert drawer.source.schema == ToySource(2).schema
    assert drawer.sampler.schema.labels["tissues:one"] == 3


def test_the_command_line_fits_and_samples_a_chain(run_cli, tmp_path):
    (tmp_path / "chain.yaml").write_text(
        "edits: [flip]\n"
        "parts:\n"
        "  - {name: one, generator: cgan3d, channels: [first]}\n"
        "  - {name: two, generator: cgan3d, set: {given: first}}\n"
    )
    options = [f"--set={key}={value}" for key, value in {"steps": 0, **TINY}.items()]
    chain, out = tmp_path / "chain.yaml", tmp_path / "run"
    fit = ("fit", chain, "--data", "toy:2", "-o", out, "--device", "cpu", *options)
    assert run_cli(*fit).exit_code == 0
    assert run_cli("sample", out, "-n", 1, "--sheet", "--device", "cpu").exit_code == 0
    assert list(out.rglob("sheet.png"))
    assert "fitted already, kept" in run_cli(*fit).stderr


# -- a stranger draws the label maps ---------------------------------------------------------------


def test_a_stranger_draws_label_maps_whatever_its_options_are_called(run_cli, tmp_path):
    with offered("stranger", generators={"cut": Cut}):
        done = run_cli("fit", "cut", "--data", "toy:2", "-o", tmp_path / "run", "--set=above=0.5")
        assert done.exit_code == 0, done.stderr
        done = run_cli("sample", tmp_path / "run", "-n", 2, "-o", tmp_path / "maps", "--json")
        assert json.loads(done.stdout)["samples"] == 2, done.stderr
        labeller = LabelMapSampler(load_run(tmp_path / "run"), ToySource(2).schema)
    for case in map(ToySource(2).load, ToySource(2).train_ids[:2]):
        drawn = labeller.draw(case, ToySource(2).schema)
        assert np.array_equal(drawn, case.image[0] > 0.5)
    with pytest.raises(UsageFault, match=r"cut was fitted to draw label maps of images"):
        check_learnable(RunFolder(tmp_path / "run"), "segmenter")


def test_a_strangers_label_maps_condition_the_images_of_a_chain(tmp_path):
    bright = {"name": "bright", "generator": "cut", "data": "people:1"}
    spec = chain(bright, {"name": "both", "labels_by": "bright", "set": {**TINY, "steps": 0}})
    how: dict[str, Any] = {"device": "cpu", "reporter": NullReporter()}
    with offered("stranger", generators={"cut": Cut}):
        fit_composite(spec, REQUEST, tmp_path / "run", settings={}, edits=None, **how)
        drawer = Sampler(load_run(tmp_path / "run", "cpu"), ToySource(2))
        (sample,) = drawer.draw_raw(0, 1)
    assert sample.under is not None
    assert set(np.unique(sample.under)) == {-1, 0, 1, 2, 3}  # 3: bright, and no label of the source


def test_training_cases_determine_no_context_of_a_part(monkeypatch, tmp_path):
    def stop(*_: Any, settings: Any, **__: Any) -> None:
        raise KeyboardInterrupt(f"context={settings['context']}")

    monkeypatch.setattr(fitting, "fit", stop)
    with pytest.raises(KeyboardInterrupt, match="context=0"):
        compose(tmp_path / "run")
