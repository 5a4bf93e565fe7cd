"""The papers' recipes fitted and sampled: chains, further sources, bodies, tumour-free brains."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.conditions.external_source import open_base
from gansynth.conditions.external_views import ChainBase
from gansynth.core.body_mask import body_mask, organ_mask
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import own_request, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import ChainSpec
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_fit import fit_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.fitting.warm_start import label_meanings
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.drawn_labels import Labeller
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.sampling.run import Run
from gansynth.sampling.sample import sample_run
from tests.plugins import paper_data
from tests.plugins.paper_data import LABELS, SEQUENCES, SIZE, TISSUES

TINY = {"width": "4", "d_width": "4", "levels": "3", "d_levels": "2", "steps": "2"}
HEALTHY = {"tissues": "brains:healthy"}
TUMOURS = SourceRequest("brains", "tumours")


@pytest.fixture(autouse=True, scope="module")
def _brains():
    paper_data.register()
    yield
    installed().remove("brains")


def fit(name: str, out: Path, **asked: Any) -> dict[str, Any]:
    recipe = find_recipe(name)
    asked = {"settings": TINY, "edits": None, **asked}
    if recipe.spec.needs:
        asked.setdefault("others", HEALTHY)
    return fit_recipe(plan_recipe(recipe, TUMOURS, **asked), out, reporter=NullReporter())


@pytest.fixture(scope="module")
def chain(_brains, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("shin") / "run"
    fit("shin2018", out)
    return out


def drawer(folder: Path, **asked: Any) -> SampleDrawer:
    run = load_run(folder)
    source = open_source(own_request(folder, run.manifest))
    return SampleDrawer(run, source, SampleRequest(**asked))


# -- shin2018: the chain ---------------------------------------------------------------------------


def test_the_chain_has_seen_both_sources(chain):
    lineage = Lineage.from_json(read_manifest(chain)["lineage"])
    assert lineage.dataset == "brains:tumours"
    assert {one.dataset for one in lineage.everyone()} == {"brains:tumours", "brains:healthy"}
    assert [case.id for case in lineage.cases] == ["p0", "p1", "p2", "p3"]


def test_all_of_a_further_source_is_learnt_from_unless_a_fold_is_named():
    folds = []
    for typed in ({}, {"tissues.fold": "1"}):
        (one,) = paper_data.sets_of("shin2018", others_read=typed).values()
        assert isinstance(one.composite, ChainSpec)
        folds.append([part.fold for part in one.composite.parts])
    assert folds == [["all", "all", "0", "0"], ["1", "1", "0", "0"]]


def test_its_parts_draw_what_the_paper_draws_and_the_beginning_nothing(chain):
    parts = {part["name"]: part["draws"] for part in read_manifest(chain)["parts"]}
    assert parts == {
        "tissues": "labels",
        "t1": "nothing",
        "mri": list(SEQUENCES),
        "segmenter": "labels",
    }


def test_the_network_of_all_sequences_starts_from_that_of_t1_label_by_label(chain, tmp_path):
    """Trained no further, it has T1's weights where labels and sequences have the same names."""
    still = {**TINY, "lr_generator": "1e-30", "lr_discriminator": "1e-30", "steps": "1"}
    fit("shin2018", tmp_path / "run", settings=still)
    parts = tmp_path / "run" / "parts"
    t1, mri = (load_run(parts / name).generator for name in ("t1", "mri"))
    assert read_manifest(parts / "mri")["config"]["init_from"]
    first = [
        next(p for n, p in gan.nets["generator"].named_parameters() if n == "stem.conv.weight")
        for gan in (t1, mri)
    ]
    # T1's: background, CSF, GM, WM. All sequences': background, three tumour classes, the tissues.
    assert torch.equal(first[0][:, 1:4], first[1][:, 4:7])
    assert torch.equal(first[0][:, 0], first[1][:, 0])
    drawn = [gan.nets["generator"].image.conv.weight for gan in (t1, mri)]  # type: ignore[union-attr]
    assert torch.equal(drawn[0][:, 0], drawn[1][:, SEQUENCES.index("t1")])  # type: ignore[index]


def test_a_drawn_label_is_called_as_the_part_that_draws_it_calls_it():
    labels = {"background": 0, "edema": 1, "tissues:CSF": 4, "tissues:edema": 5}
    assert label_meanings(labels) == {
        "label:0": "label:background",
        "label:1": "label:edema",
        "label:4": "label:CSF",
        "label:5": "label:tissues:edema",
    }


def test_samples_have_the_labels_of_the_data_set_alone(chain):
    for sample in drawer(chain).draw(0, 3):
        assert sample.labels is not None
        assert sample.image.shape == (4, *SIZE)
        assert set(np.unique(sample.labels)) <= set(LABELS.values())
        assert np.isfinite(sample.image).all()


def test_edits_change_the_tumour_and_tissues_show_where_it_has_been(chain):
    told = drawer(chain, edits=("shift:max_mm=8",))
    moved = 0
    for index in range(6):
        condition = told.sampler.draw(index)
        assert condition.labels is not None
        case = told.sampler.cache(condition.provenance["case"])
        assert case.under is not None
        assert case.own.labels is not None
        before, after = case.own.labels, np.where(condition.labels < 5, condition.labels, 0)
        moved += not np.array_equal(before, after)
        left = (before > 0) & (after == 0)
        assert np.array_equal(condition.labels[left], case.under[left])
        there = after == 0
        assert np.array_equal(condition.labels[there], case.under[there])
    assert moved >= 4


def test_a_transplant_takes_the_tumour_and_leaves_the_tissues(chain):
    told = drawer(chain, edits=("transplant",))
    for index in range(4):
        condition = told.sampler.draw(index)
        case = told.sampler.cache(condition.provenance["case"])
        assert condition.labels is not None
        assert case.under is not None
        there = (condition.labels == 0) | (condition.labels >= 5)
        assert np.array_equal(condition.labels[there], case.under[there])


# -- on tumour-free brains -------------------------------------------------------------------------


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
    assert isinstance(told.base, ChainBase)
    tumours = 0
    for sample in told.draw(0, 4):
        assert sample.labels is not None
        assert sample.image.shape == (4, *SIZE)
        assert set(np.unique(sample.labels)) <= set(LABELS.values())
        tumours += bool((sample.labels > 0).any())
    assert tumours >= 3
    assert {one.dataset for one in told.lineage.everyone()} >= {"brains:healthy"}


def test_its_own_tissue_labels_are_taken_where_it_has_some(chain, healthy):
    told = drawer(chain, edits=("identity",), conditions=CALLED)
    condition = told.sampler.draw(0)
    bare = open_source(SourceRequest(**CALLED)).load(condition.provenance["case"])
    assert bare.labels is not None
    assert condition.labels is not None
    assert np.array_equal(condition.labels, np.where(bare.labels > 0, bare.labels + 4, 0))


def test_without_t1_by_its_name_it_is_refused_with_the_way_out(chain):
    run = load_run(chain)
    own = open_source(own_request(chain, run.manifest))
    paper = {**CALLED, "where": "tumours"}
    assert isinstance(open_base(paper, own), ChainBase)

    class Nothing(paper_data.Brains):
        """Unlabelled, and of T1c alone."""

    source = Nothing(SourceRequest("brains", "healthy"))
    plain = source.schema
    type(source).schema = property(  # type: ignore[assignment,method-assign]
        lambda self: replace(plain, channels=("t1ce",), labels={"background": 0})
    )
    with pytest.raises(UsageFault, match="expected t1 among them, of which tissues draws"):
        ChainBase(source, own)  # type: ignore[arg-type]


# -- parts by themselves ---------------------------------------------------------------------------


def maps_of(chain: Path, part: str, out: Path, **asked: Any) -> Any:
    """What ``gansynth sample RUN/parts/PART`` writes, opened as the data set it is."""
    report = sample_run(chain / "parts" / part, None, out=out, reporter=NullReporter(), **asked)
    found = open_source(SourceRequest("nifti", report["folder"], fold="all"))
    return report, found


TUMOUR_SET = SampleRequest(conditions={"kind": "brains", "where": "tumours"})


def test_tissues_are_drawn_of_any_t1_whatever_its_own_labels_are(chain, tmp_path):
    """Of people with tumours, in a set with other channels, too."""
    report, found = maps_of(chain, "tissues", tmp_path / "maps", request=TUMOUR_SET, sheet=True)
    assert found.schema.channels == ("t1",)
    assert dict(found.schema.labels) == TISSUES
    assert report["samples"] == len(found.train_ids) == 4
    assert Path(report["sheet"]).stat().st_size > 1000


def test_they_are_those_that_the_chain_draws(chain, tmp_path):
    _, found = maps_of(chain, "tissues", tmp_path / "maps", request=TUMOUR_SET)
    view = drawer(chain).sampler.source
    for case_id in found.train_ids:
        assert np.array_equal(found.load(case_id).labels, tissues_of(view.load(case_id)))


def tissues_of(case: Case) -> np.ndarray[Any, Any]:
    """What a chain has drawn beneath a case's tumour, by the tissues' own numbers."""
    assert case.under is not None
    return np.where(case.under > 4, case.under - 4, 0)


def test_the_tumour_is_predicted_on_images_without_labels(chain, tmp_path, monkeypatch):
    plain = paper_data.Brains.load
    monkeypatch.setattr(paper_data.Brains, "load", lambda s, i: replace(plain(s, i), labels=None))
    _, found = maps_of(chain, "segmenter", tmp_path / "maps", request=TUMOUR_SET)
    assert found.schema.channels == SEQUENCES
    assert dict(found.schema.labels) == LABELS
    for case_id in found.train_ids:
        assert set(np.unique(found.load(case_id).labels)) <= set(LABELS.values())


@pytest.mark.parametrize(
    ("option", "asked"),
    [
        ("--edit", {"request": SampleRequest(edits=("shift",))}),
        ("--for-sharing", {"for_sharing": True}),
    ],
)
def test_what_is_asked_of_samples_is_refused_of_label_maps(chain, tmp_path, option, asked):
    with pytest.raises(UsageFault, match=f"{option}: .* draws label maps of images"):
        maps_of(chain, "tissues", tmp_path / "maps", **asked)


def test_tissues_are_drawn_at_the_resolution_they_were_learnt_at(chain, monkeypatch):
    run, shown = load_run(chain / "parts" / "tissues"), []
    half = replace(run.space, size=tuple(n // 2 for n in SIZE))
    monkeypatch.setattr(Run, "space", property(lambda self: half))
    draw = run.generator.sample

    def record(conditions: Any, seeds: Any) -> Any:
        shown.append(conditions[0].given.shape)
        return draw(conditions, seeds)

    monkeypatch.setattr(run.generator, "sample", record)
    source = open_source(TUMOURS)
    labels = Labeller(run, source.schema).draw(source.load("p0"), source.schema)
    assert shown == [(1, *half.size)]
    assert labels.shape == SIZE


def test_beyond_the_frame_it_was_learnt_in_there_is_no_tissue(chain, monkeypatch):
    run = load_run(chain / "parts" / "tissues")
    inner = tuple(n - 4 for n in SIZE)
    framed = replace(run.space, frame=inner, size=inner)
    monkeypatch.setattr(Run, "space", property(lambda self: framed))
    everywhere = Sample(np.zeros((1, *inner), np.float32), np.full(inner, 3, np.int16))
    monkeypatch.setattr(run.generator, "sample", lambda *asked: [everywhere])
    source = open_source(TUMOURS)
    labels = Labeller(run, source.schema).draw(source.load("p0"), source.schema)
    wanted = np.zeros(SIZE, np.int16)
    wanted[2:-2, 2:-2, 2:-2] = 3
    assert np.array_equal(labels, wanted)


def test_samples_of_the_chain_keep_the_tissues_they_were_asked_for(chain):
    told = drawer(chain, edits=("identity",))
    (sample,) = told.draw(0, 1)
    condition = told.sampler.draw(0)
    assert sample.under is not None
    assert condition.labels is not None
    assert np.array_equal(sample.under, condition.labels)  # a frame as large as the case


# -- further sources -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"others": {}}, "needs tissues: T1 volumes .* --with tissues=KIND:WHERE"),
        ({"others": {**HEALTHY, "tisues": "x:y"}}, "--with tisues: .* Did you mean 'tissues'?"),
        ({"others": HEALTHY, "others_read": {"tissue.size": "1"}}, "--with-read tissue: "),
        ({"others": {"tissues": "nowhere"}}, "expected KIND:WHERE"),
    ],
    ids=["missing", "slip", "read", "no kind"],
)
def test_a_further_source_that_does_not_fit_is_one_line(tmp_path, asked, says):
    with pytest.raises(UsageFault, match=says):
        fit("shin2018", tmp_path / "run", **asked)


def test_cases_that_a_recipe_cannot_read_are_refused_with_what_it_reads_them_by(tmp_path):
    request = SourceRequest("pictures", str(tmp_path))
    with pytest.raises(UsageFault, match="recipe mmgan2020 reads its cases by frame=150,200,160"):
        plan_recipe(find_recipe("mmgan2020"), request, settings={}, edits=None)


def test_a_part_starts_from_an_earlier_one_only(tmp_path):
    from gansynth.fitting.composite_plan import make_plan
    from gansynth.fitting.composite_spec import ChainSpec, PartSpec

    late = PartSpec(name="a", generator="cgan3d", init_from="b")
    spec = ChainSpec(parts=(late, PartSpec(name="b", generator="cgan3d")))
    with pytest.raises(UsageFault, match="part 'a': init_from 'b': expected an earlier part"):
        make_plan(spec, TUMOURS, {}, None)


# -- mmgan2020: bodies -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mmgan(_brains, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("mmgan") / "runs"
    fit("mmgan2020", out)
    return out / "pool"


def test_each_model_learns_with_the_brain_of_its_own_sequence(mmgan):
    seen = {}
    for name in SEQUENCES:
        folder = mmgan / "parts" / name
        run = load_run(folder)
        source = open_source(own_request(folder, run.manifest))
        seen[name] = run.generator.context(run.space.to_generator(source.load("p0")))
    assert seen["flair"].sum() < seen["t1"].sum()
    assert np.array_equal(seen["t1"], seen["t2"])


def test_samples_of_all_are_asked_for_the_brain_of_t1(mmgan):
    told = drawer(mmgan, edits=("elastic",))
    condition = told.sampler.draw(0)
    case = told.sampler.cache(condition.provenance["case"])
    body = body_mask(case.image[[SEQUENCES.index("t1")]])
    assert condition.labels is not None
    assert condition.context is not None
    assert np.array_equal(condition.context == 1, body & (condition.labels == 0))
    (sample,) = told.draw(0, 1)
    assert sample.image.shape == (4, *SIZE)


def test_both_sets_can_be_had_and_differ_in_their_pool(mmgan):
    fit("mmgan2020", mmgan.parent, only=("no-pool",))
    record = json.loads((mmgan.parent / "recipe.json").read_text())
    assert {name: one["state"] for name, one in record["sets"].items()} == {
        "pool": "complete",
        "no-pool": "complete",
    }
    pools = [
        read_manifest(mmgan.parent / name / "parts" / "t1")["options"]["pool"]
        for name in ("pool", "no-pool")
    ]
    assert pools == [4, 0]


# -- doncenco2022, and the liver -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "own"), [("SN", {}), ("local-perceptual", {"local_size": "8"})])
def test_doncencos_sets_fit_and_draw(tmp_path, name, own):
    settings = {**TINY, **own, "steps": "4"}
    report = fit("doncenco2022", tmp_path / "runs", only=(name,), settings=settings)
    losses = report["sets"][name]["losses"]
    assert all(np.isfinite(value) for value in losses.values())
    (sample,) = drawer(tmp_path / "runs" / name).draw(0, 1)
    assert sample.image.shape == (4, *SIZE)
    assert sample.provenance["edits"][0]["edit"] == "transplant"


def test_the_liver_variant_fits_and_draws(tmp_path):
    fit("mmgan2020-liver", tmp_path / "run")
    (sample,) = drawer(tmp_path / "run").draw(0, 1)
    assert np.isfinite(sample.image).all()


# -- bodies ----------------------------------------------------------------------------------------


def test_a_body_is_found_to_the_voxel_where_the_background_is_even():
    rng = np.random.default_rng(0)
    body = np.zeros((12, 14, 16), bool)
    body[3:9, 2:12, 4:13] = True
    image = np.where(body, rng.normal(0, 1, body.shape), 0.25)[None].astype(np.float32)
    assert np.array_equal(body_mask(image), body)
    hollow = image.copy()
    hollow[0, 5, 6, 7] = 0.25
    assert np.array_equal(body_mask(hollow), body)


def test_noise_around_a_body_is_left_to_otsu():
    rng = np.random.default_rng(0)
    body = np.zeros((16, 20, 20), bool)
    body[4:12, 5:15, 5:15] = True
    image = (np.where(body, 10.0, 0.0) + rng.normal(0, 0.1, body.shape))[None].astype(np.float32)
    assert np.array_equal(body_mask(image), organ_mask(image))
    assert body_mask(image)[body].all()


def test_a_channel_that_shows_nothing_hides_no_body():
    body = np.zeros((16, 20, 20), bool)
    body[4:12, 5:15, 5:15] = True
    image = np.where(body, 5.0, 0.0)[None].astype(np.float32)
    both = np.concatenate([image, np.zeros_like(image)])
    assert np.array_equal(organ_mask(both), organ_mask(image))
    assert organ_mask(np.zeros_like(image)).all()


def test_clip_keeps_foreground_in_the_body_that_the_image_shows(mmgan):
    told = drawer(mmgan, edits=("shift:max_mm=12", "clip:to=image"))
    for index in range(6):
        condition = told.sampler.draw(index)
        case = told.sampler.cache(condition.provenance["case"])
        assert condition.labels is not None
        assert not (condition.labels[~organ_mask(case.image)] > 0).any()
