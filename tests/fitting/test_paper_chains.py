# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gansynth
from gansynth.conditions.condition_source import ChainConditionSource, open_base
from gansynth.core.body_mask import body_mask, organ_mask
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import own_request, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PartSpec
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_fit import fit_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.fitting.warm_start import label_meanings
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import Run
from gansynth.sampling.run_source import LabelMapSampler, open_source
from gansynth.sampling.sampler import Sampler
from tests.plugins import paper_data
from tests.plugins.paper_data import LABELS, SEQUENCES, SIZE, TISSUES, brains  # noqa: F401

TINY = {"width": "4", "d_width": "4", "levels": "3", "d_levels": "2", "steps": "2"}
HEALTHY = {"tissues": "brains:healthy"}
TUMOURS = SourceRequest("brains", "tumours")


def fit(name: str, out: Path, **asked: Any) -> dict[str, Any]:
    recipe = find_recipe(name)
    asked = {"settings": TINY, "edits": None, **asked}
    if recipe.spec.needs:
        asked.setdefault("others", HEALTHY)
    return fit_recipe(plan_recipe(recipe, TUMOURS, **asked), out, reporter=NullReporter())


@pytest.fixture(scope="module")
def chain(brains, tmp_path_factory) -> Path:  # noqa: F811
    out: Path = tmp_path_factory.mktemp("shin") / "run"
    fit("shin2018", out)
    return out


def drawer(folder: Path, **asked: Any) -> Sampler:
    run = load_run(folder)
    source = open_source(own_request(folder, run.manifest))
    return Sampler(run, source, SampleRequest(**asked))


def of_case(told: Sampler, index: int) -> tuple[Any, Any]:
    """A condition, and its case."""
    condition: Any = told.sampler.draw(index)
    case: Any = told.sampler.cases(condition.provenance["case"])
    return condition, case


@pytest.mark.slow
def test_the_chain_has_seen_both_sources_and_its_parts_draw_what_the_paper_draws(chain):
    manifest = read_manifest(chain)
    lineage = Lineage.from_json(manifest["lineage"])
    assert lineage.dataset == "brains:tumours"
    assert {one.dataset for one in lineage.everyone()} == {"brains:tumours", "brains:healthy"}
    assert [case.id for case in lineage.cases] == ["p0", "p1", "p2", "p3"]
    parts = {part["name"]: part["draws"] for part in manifest["parts"]}
    assert list(parts.values()) == ["labels", "nothing", list(SEQUENCES), "labels"]
    assert list(parts) == ["tissues", "t1", "mri", "segmenter"]


def test_all_of_a_further_source_is_learnt_from_unless_a_fold_is_named():
    folds = []
    for typed in ({}, {"tissues.fold": "1"}):
        (one,) = paper_data.sets_of("shin2018", others_read=typed).values()
        assert isinstance(one.composite, ChainSpec)
        folds.append([part.fold for part in one.composite.parts])
    assert folds == [["all", "all", "0", "0"], ["1", "1", "0", "0"]]


@pytest.mark.slow
def test_the_network_of_all_sequences_starts_from_that_of_t1_label_by_label(chain, tmp_path):
    """Trained no further, it has T1's weights where labels and sequences have the same names."""
    still = {**TINY, "lr_generator": "1e-30", "lr_discriminator": "1e-30", "steps": "1"}
    fit("shin2018", tmp_path / "run", settings=still)
    parts = tmp_path / "run" / "parts"
    t1, mri = (load_run(parts / name).generator.nets["generator"] for name in ("t1", "mri"))
    assert read_manifest(parts / "mri")["config"]["init_from"]
    first: Any = [dict(net.named_parameters())["stem.conv.weight"] for net in (t1, mri)]
    # T1's: background, CSF, GM, WM. All sequences': background, three tumour classes, the tissues.
    assert torch.equal(first[0][:, 1:4], first[1][:, 4:7])
    assert torch.equal(first[0][:, 0], first[1][:, 0])
    drawn: Any = [dict(net.named_parameters())["image.conv.weight"] for net in (t1, mri)]
    assert torch.equal(drawn[0][:, 0], drawn[1][:, SEQUENCES.index("t1")])


def test_a_drawn_label_is_called_as_the_part_that_draws_it_calls_it():
    labels = {"background": 0, "edema": 1, "tissues:CSF": 4, "tissues:edema": 5}
    assert list(label_meanings(labels).items()) == [
        *(("label:0", "label:background"), ("label:1", "label:edema")),
        *(("label:4", "label:CSF"), ("label:5", "label:tissues:edema")),
    ]


@pytest.mark.parametrize("edit", ["identity", "shift:max_mm=8", "transplant"])
def test_edits_change_the_tumour_and_tissues_show_where_it_has_been(chain, edit):
    told, moved = drawer(chain, edits=(edit,)), 0
    for index in range(6):
        condition, case = of_case(told, index)
        before, after = case.own.labels, np.where(condition.labels < 5, condition.labels, 0)
        moved += not np.array_equal(before, after)
        assert np.array_equal(condition.labels[after == 0], case.under[after == 0])
    assert moved == 0 if edit == "identity" else moved >= 4
    for sample in told.draw(0, 2):
        assert sample.labels is not None
        assert sample.image.shape == (4, *SIZE)
        assert set(np.unique(sample.labels)) <= set(LABELS.values())  # the data set's own alone
        assert np.isfinite(sample.image).all()
        assert sample.under is not None
    asked = told.sampler.draw(1).labels  # a frame as large as the case
    assert np.array_equal(sample.under, asked)  # type: ignore[arg-type]


CALLED: dict[str, Any] = {"kind": "brains", "where": "healthy"}


@pytest.fixture
def healthy(monkeypatch):
    """The tissue set, which calls its T1 as the tumour set does."""
    plain = paper_data.Brains.schema.fget  # type: ignore[attr-defined]

    def schema(self):
        found = plain(self)
        return replace(found, channels=("t1",)) if self.healthy else found

    monkeypatch.setattr(paper_data.Brains, "schema", property(schema))


def test_a_tumour_comes_to_lie_on_a_tumour_free_brain_of_t1_alone(chain, healthy):
    told = drawer(chain, edits=("transplant",), conditions=CALLED)
    assert isinstance(told.base, ChainConditionSource)
    drawn: Any = told.draw(0, 4)
    for sample in drawn:
        assert sample.image.shape == (4, *SIZE)
        assert set(np.unique(sample.labels)) <= set(LABELS.values())
    assert sum((sample.labels > 0).any() for sample in drawn) >= 3
    assert {one.dataset for one in told.lineage.everyone()} >= {"brains:healthy"}
    # Its own tissue labels are taken where it has some.
    condition: Any = drawer(chain, edits=("identity",), conditions=CALLED).sampler.draw(0)
    bare: Any = open_source(SourceRequest(**CALLED)).load(condition.provenance["case"]).labels
    assert np.array_equal(condition.labels, np.where(bare > 0, bare + 4, 0))


def test_without_t1_by_its_name_it_is_refused_with_the_way_out(chain):
    own: Any = open_source(own_request(chain, load_run(chain).manifest))
    assert isinstance(open_base({**CALLED, "where": "tumours"}, own), ChainConditionSource)
    plain = paper_data.Brains(SourceRequest("brains", "healthy"))
    other = replace(plain.schema, channels=("t1ce",), labels={"background": 0})
    bare = type("Bare", (paper_data.Brains,), {"schema": property(lambda self: other)})
    source: Any = bare(plain.request)
    with pytest.raises(UsageFault, match="expected t1 among them, of which tissues draws"):
        ChainConditionSource(source, own)


def maps_of(chain: Path, part: str, out: Path, **asked: Any) -> Any:
    """What ``gansynth sample RUN/parts/PART`` writes, opened as the data set it is."""
    report = gansynth.sample(chain / "parts" / part, out=out, quiet=True, **asked)
    found = open_source(SourceRequest("nifti", report["folder"], fold="all"))
    return report, found


TUMOUR_SET = "brains:tumours"


def test_tissues_are_drawn_of_any_t1_as_the_chain_draws_them(chain, tmp_path):
    """Of people with tumours, in a set with other channels, too."""
    report, found = maps_of(
        chain, "tissues", tmp_path / "maps", condition_source=TUMOUR_SET, sheet=True
    )
    assert (found.schema.channels, dict(found.schema.labels)) == (("t1",), TISSUES)
    assert report["samples"] == len(found.train_ids) == 4
    assert Path(report["sheet"]).stat().st_size > 1000
    view: Any = drawer(chain).sampler.cases
    for case_id in found.train_ids:
        under = view(case_id).under
        assert np.array_equal(found.load(case_id).labels, np.where(under > 4, under - 4, 0))


def test_the_tumour_is_predicted_on_images_without_labels(chain, tmp_path, monkeypatch):
    plain = paper_data.Brains.load
    monkeypatch.setattr(paper_data.Brains, "load", lambda s, i: replace(plain(s, i), labels=None))
    _, found = maps_of(chain, "segmenter", tmp_path / "maps", condition_source=TUMOUR_SET)
    assert (found.schema.channels, dict(found.schema.labels)) == (SEQUENCES, LABELS)
    for case_id in found.train_ids:
        assert set(np.unique(found.load(case_id).labels)) <= set(LABELS.values())


@pytest.mark.parametrize(
    ("option", "asked"),
    [
        ("edit", {"edit": "shift"}),
        ("deidentify", {"deidentify": True}),
    ],
)
def test_what_is_asked_of_samples_is_refused_of_label_maps(chain, tmp_path, option, asked):
    with pytest.raises(UsageFault, match=f"{option}: .* draws label maps of images"):
        maps_of(chain, "tissues", tmp_path / "maps", **asked)


@pytest.mark.parametrize("framed", [False, True])
def test_tissues_are_drawn_at_the_size_they_were_learnt_at_and_none_beyond_its_frame(
    chain, monkeypatch, framed
):
    run, shown = load_run(chain / "parts" / "tissues"), []
    size = tuple(n - 4 if framed else n // 2 for n in SIZE)
    frame = size if framed else run.space.frame
    space = replace(run.space, size=size, frame=frame)
    monkeypatch.setattr(Run, "space", property(lambda self: space))

    def everywhere(conditions: Any, seeds: Any) -> Any:
        shown.append(conditions[0].given.shape)
        return [Sample(np.zeros((1, *size), np.float32), np.full(size, 3, np.int16))]

    monkeypatch.setattr(run.generator, "sample", everywhere)
    source = open_source(TUMOURS)
    labels = LabelMapSampler(run, source.schema).draw(source.load("p0"), source.schema)
    assert shown == [(1, *size)]
    wanted = np.full(SIZE, 0 if framed else 3, np.int16)
    wanted[2:-2, 2:-2, 2:-2] = 3
    assert np.array_equal(labels, wanted)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"others": {}}, "needs tissues: T1 volumes .* --extra-source tissues=KIND:WHERE"),
        (
            {"others": {**HEALTHY, "tisues": "x:y"}},
            "--extra-source tisues: .* Did you mean 'tissues'?",
        ),
        ({"others": HEALTHY, "others_read": {"tissue.size": "1"}}, "--extra-source-read tissue: "),
        ({"others": {"tissues": "nowhere"}}, "expected KIND:WHERE"),
    ],
    ids=["missing", "slip", "read", "no kind"],
)
def test_a_further_source_that_does_not_fit_is_one_line(tmp_path, asked, says):
    with pytest.raises(UsageFault, match=says):
        fit("shin2018", tmp_path / "run", **asked)


def test_cases_that_cannot_be_read_and_parts_from_later_ones_are_refused(tmp_path):
    request = SourceRequest("pictures", str(tmp_path))
    with pytest.raises(UsageFault, match="recipe mmgan2020 reads its cases by frame=150,200,160"):
        plan_recipe(find_recipe("mmgan2020"), request, settings={}, edits=None)
    late = PartSpec(name="a", generator="cgan3d", init_from="b")
    spec = ChainSpec(parts=(late, PartSpec(name="b", generator="cgan3d")))
    with pytest.raises(UsageFault, match="part 'a': init_from 'b': expected an earlier part"):
        make_plan(spec, TUMOURS, {}, None)


@pytest.fixture(scope="module")
def mmgan(brains, tmp_path_factory) -> Path:  # noqa: F811
    out: Path = tmp_path_factory.mktemp("mmgan") / "runs"
    fit("mmgan2020", out)
    return out / "pool"


@pytest.mark.slow
def test_each_model_learns_with_its_own_brain_and_samples_are_asked_for_that_of_t1(mmgan):
    seen: dict[str, Any] = {}
    for name in SEQUENCES:
        folder = mmgan / "parts" / name
        run = load_run(folder)
        source = open_source(own_request(folder, run.manifest))
        seen[name] = run.generator.context(run.space.to_generator(source.load("p0")))
    assert seen["flair"].sum() < seen["t1"].sum()
    assert np.array_equal(seen["t1"], seen["t2"])
    told = drawer(mmgan, edits=("elastic",))
    condition, case = of_case(told, 0)
    body = body_mask(case.image[[SEQUENCES.index("t1")]])
    assert np.array_equal(condition.context == 1, body & (condition.labels == 0))
    assert told.draw(0, 1)[0].image.shape == (4, *SIZE)
    clipped = drawer(mmgan, edits=("shift:max_mm=12", "clip:to=image"))
    for index in range(6):  # foreground stays in the body that the image shows
        condition, case = of_case(clipped, index)
        assert not (condition.labels[~organ_mask(case.image)] > 0).any()


@pytest.mark.slow
def test_both_sets_can_be_had_and_differ_in_their_pool(mmgan):
    fit("mmgan2020", mmgan.parent, only=("no-pool",))
    sets = json.loads((mmgan.parent / "recipe.json").read_text())["sets"]
    assert {name: one["state"] for name, one in sets.items()} == dict.fromkeys(
        ("pool", "no-pool"), "complete"
    )
    pools = [
        read_manifest(mmgan.parent / name / "parts" / "t1")["options"]["pool"] for name in sets
    ]
    assert pools == [4, 0]


@pytest.mark.parametrize(
    ("recipe", "name", "own"),
    [
        ("doncenco2022", "SN", {}),
        pytest.param(
            *("doncenco2022", "local-perceptual", {"local_size": "8"}), marks=pytest.mark.slow
        ),
        pytest.param("mmgan2020-liver", "", {}, marks=pytest.mark.slow),
    ],
)
def test_other_papers_recipes_fit_and_draw(tmp_path, recipe, name, own):
    settings = {**TINY, **own}
    report = fit(
        recipe, tmp_path / "runs", settings=settings, **({"only": (name,)} if name else {})
    )
    (sample,) = drawer(tmp_path / "runs" / name).draw(0, 1)
    assert np.isfinite(sample.image).all()
    if name:
        assert all(np.isfinite(value) for value in report["sets"][name]["losses"].values())
        assert sample.provenance["edits"][0]["edit"] == "transplant"


def test_a_body_is_what_differs_from_an_even_background_or_what_otsu_says():
    rng, body = np.random.default_rng(0), np.zeros((16, 20, 20), bool)
    body[4:12, 5:15, 5:15] = True
    even = np.where(body, rng.normal(0, 1, body.shape), 0.25)[None].astype(np.float32)
    assert np.array_equal(body_mask(even), body)
    even[0, 8, 10, 10] = 0.25
    assert np.array_equal(body_mask(even), body)  # nothing within is a hole
    noisy = (np.where(body, 10.0, 0.0) + rng.normal(0, 0.1, body.shape))[None].astype(np.float32)
    assert np.array_equal(body_mask(noisy), organ_mask(noisy))
    assert body_mask(noisy)[body].all()
    image = np.where(body, 5.0, 0.0)[None].astype(np.float32)
    both = np.concatenate([image, np.zeros_like(image)])  # a channel that shows nothing
    assert np.array_equal(organ_mask(both), organ_mask(image))
    assert organ_mask(np.zeros_like(image)).all()
