from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gansynth
from gansynth.conditions.condition_source import ChainConditionSource, open_base
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import own_request, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_plan import make_plan
from gansynth.fitting.composite_spec import ChainSpec, PartSpec
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_fit import fit_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.fitting.warm_start import label_meanings
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from tests.expected import raises_fault
from tests.plugins import paper_data
from tests.plugins.paper_data import LABELS, SEQUENCES, SIZE, TISSUES, Brains, brains  # noqa: F401

TINY = {"width": "4", "d_width": "4", "levels": "3", "d_levels": "2", "steps": "1"}
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


def test_the_chain_has_seen_both_sources_and_its_parts_draw_what_the_paper_draws(chain):
    manifest = read_manifest(chain)
    lineage = Lineage.from_json(manifest["lineage"])
    assert lineage.dataset == "brains:tumours"
    assert {one.dataset for one in lineage.everyone()} == {"brains:tumours", "brains:healthy"}
    assert [case.id for case in lineage.cases] == ["p0", "p1", "p2", "p3"]
    parts = {part["name"]: part["draws"] for part in manifest["parts"]}
    assert list(parts.values()) == ["labels", "nothing", list(SEQUENCES), "labels"]
    assert list(parts) == ["tissues", "t1", "mri", "segmenter"]


def test_the_network_of_all_sequences_starts_from_that_of_t1_label_by_label(chain):
    """And the others start from none."""
    parts = {p: read_manifest(chain / "parts" / p) for p in ("tissues", "t1", "mri", "segmenter")}
    started = {name: part["init_from"] for name, part in parts.items() if part["init_from"]}
    assert started.keys() == {"mri"}
    assert started["mri"]["run_id"] == parts["t1"]["run_id"]
    # T1's: background, CSF, GM, WM. All sequences': background, three tumour classes, the tissues.
    copied = started["mri"]["partial"]
    labels = [f"label:{name}" for name in TISSUES]
    assert copied["generator/stem.conv.weight"] == labels
    assert copied["generator/image.conv.weight"] == ["image:t1"]
    assert label_meanings({"edema": 1, "tissues:CSF": 4, "tissues:edema": 5}) == {
        **{"label:1": "label:edema", "label:4": "label:CSF"},
        "label:5": "label:tissues:edema",  # which is no edema of a tumour
    }


def test_all_of_a_further_source_is_learnt_from_unless_a_fold_is_named():
    folds = []
    for typed in ({}, {"tissues.fold": "1"}):
        (one,) = paper_data.sets_of("shin2018", others_read=typed).values()
        assert isinstance(one.composite, ChainSpec)
        folds.append([part.fold for part in one.composite.parts])
    assert folds == [["all", "all", "0", "0"], ["1", "1", "0", "0"]]


@pytest.mark.parametrize("edit", ["identity", "transplant"])
def test_edits_change_the_tumour_and_tissues_show_where_it_has_been(chain, edit):
    told, moved = drawer(chain, edits=(edit,)), 0
    for index in range(6):
        condition: Any = told.sampler.draw(index)
        case: Any = told.sampler.cases(condition.provenance["case"])
        before, after = case.own.labels, np.where(condition.labels < 5, condition.labels, 0)
        moved += not np.array_equal(before, after)
        assert np.array_equal(condition.labels[after == 0], case.under[after == 0])
    assert moved == 0 if edit == "identity" else moved >= 4
    (sample,) = told.draw(1, 1)
    assert sample.image.shape == (4, *SIZE)
    assert sample.labels is not None
    assert set(np.unique(sample.labels)) <= set(LABELS.values())  # the data set's own alone
    assert np.isfinite(sample.image).all()
    asked = told.sampler.draw(1).labels  # a frame as large as the case
    assert np.array_equal(sample.under, asked)  # type: ignore[arg-type]


CALLED: dict[str, Any] = {"kind": "brains", "where": "healthy"}


def test_a_tumour_comes_to_lie_on_a_tumour_free_brain_of_t1_alone(chain, monkeypatch):
    plain = paper_data.Brains.schema.fget  # type: ignore[attr-defined]

    def schema(self):
        """The tissue set calls its T1 as the tumour set does."""
        return replace(plain(self), channels=("t1",)) if self.healthy else plain(self)

    monkeypatch.setattr(paper_data.Brains, "schema", property(schema))
    told = drawer(chain, edits=("transplant",), label_source=CALLED)
    drawn: Any = told.draw(0, 4)
    for sample in drawn:
        assert sample.image.shape == (4, *SIZE)
        assert set(np.unique(sample.labels)) <= set(LABELS.values())
    assert sum((sample.labels > 0).any() for sample in drawn) >= 3
    assert {one.dataset for one in told.lineage.everyone()} >= {"brains:healthy"}
    # Its own tissue labels are taken where it has some.
    condition: Any = drawer(chain, edits=("identity",), label_source=CALLED).sampler.draw(0)
    bare: Any = open_source(SourceRequest(**CALLED)).load(condition.provenance["case"]).labels
    assert np.array_equal(condition.labels, np.where(bare > 0, bare + 4, 0))


def test_without_t1_by_its_name_it_is_refused_with_the_way_out(chain):
    own: Any = open_source(own_request(chain, load_run(chain).manifest))
    assert isinstance(open_base({**CALLED, "where": "tumours"}, own), ChainConditionSource)
    plain = paper_data.Brains(SourceRequest("brains", "healthy"))
    other = replace(plain.schema, channels=("t1ce",), labels={"background": 0})
    bare = type("Bare", (paper_data.Brains,), {"schema": property(lambda self: other)})
    source: Any = bare(plain.request)
    with raises_fault("conditions.label-source-lacks-channels"):
        ChainConditionSource(source, own)


def maps_of(chain: Path, part: str, out: Path, **asked: Any) -> Any:
    """What ``gansynth sample RUN/parts/PART`` writes, opened as the data set it is."""
    report = gansynth.sample(chain / "parts" / part, out=out, quiet=True, **asked)
    found = open_source(SourceRequest("nifti", report["folder"], fold="all"))
    return report, found


TUMOUR_SET = "brains:tumours"


def test_tissues_are_drawn_of_any_t1_as_the_chain_draws_them(chain, tmp_path):
    """Of people with tumours, in a set with other channels, too."""
    out = tmp_path / "maps"
    report, found = maps_of(chain, "tissues", out, label_source=TUMOUR_SET, sheet=True)
    assert (found.schema.channels, dict(found.schema.labels)) == (("t1",), TISSUES)
    assert report["samples"] == len(found.train_ids) == 4
    assert Path(report["sheet"]).stat().st_size > 1000
    view: Any = drawer(chain).sampler.cases
    for case_id in found.train_ids:
        under = view(case_id).under
        assert np.array_equal(found.load(case_id).labels, np.where(under > 4, under - 4, 0))
    for option, asked in (("edit", {"edit": "shift"}), ("deidentify", {"deidentify": True})):
        with raises_fault("request.field-not-allowed", names=option):
            maps_of(chain, "tissues", tmp_path / "none", **asked)


def test_the_tumour_is_predicted_on_images_without_labels(chain, tmp_path, monkeypatch):
    plain = paper_data.Brains.load
    monkeypatch.setattr(paper_data.Brains, "load", lambda s, i: replace(plain(s, i), labels=None))
    _, found = maps_of(chain, "segmenter", tmp_path / "maps", label_source=TUMOUR_SET)
    assert (found.schema.channels, dict(found.schema.labels)) == (SEQUENCES, LABELS)
    for case_id in found.train_ids:
        assert set(np.unique(found.load(case_id).labels)) <= set(LABELS.values())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"others": {}}, "fitting.recipe-source-missing"),
        (
            {"others": {**HEALTHY, "tisues": "x:y"}},
            "fitting.recipe-source-not-needed",
        ),
        (
            {"others": HEALTHY, "others_read": {"tissue.size": "1"}},
            "fitting.recipe-source-not-needed",
        ),
        ({"others": {"tissues": "nowhere"}}, "source.data-malformed"),
    ],
    ids=["missing", "slip", "read", "no kind"],
)
def test_a_further_source_that_does_not_fit_is_one_line(tmp_path, asked, expected):
    with raises_fault(expected):
        fit("shin2018", tmp_path / "run", **asked)


def test_a_further_source_of_other_voxels_is_refused_at_the_fit_as_a_transplant_would(
    tmp_path,
    brains,  # noqa: F811
    monkeypatch,
):
    own: Any = Brains.schema

    def coarse(source: Brains) -> Any:
        schema = own.fget(source)
        return replace(schema, spacing=(2.0, 1.0, 1.0)) if source.healthy else schema

    monkeypatch.setattr(Brains, "schema", property(coarse))
    says = "does: --extra-source-read tissues.spacing=1,1,1"
    with raises_fault("conditions.label-source-spacing-differs", names=says):
        fit("shin2018", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cases_that_cannot_be_read_and_parts_from_later_ones_are_refused(tmp_path):
    request = SourceRequest("pictures", str(tmp_path))
    with raises_fault("fitting.recipe-read-keys-not-taken"):
        plan_recipe(find_recipe("mmgan2020"), request, settings={}, edits=None)
    late = PartSpec(name="a", generator="cgan3d", init_from="b")
    spec = ChainSpec(parts=(late, PartSpec(name="b", generator="cgan3d")))
    with raises_fault("fitting.init-from-not-earlier-part"):
        make_plan(spec, TUMOURS, {}, None)


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
    only = {"only": (name,)} if name else {}
    report = fit(recipe, tmp_path / "runs", settings={**TINY, **own}, **only)
    (sample,) = drawer(tmp_path / "runs" / name).draw(0, 1)
    assert np.isfinite(sample.image).all()
    if name:
        assert np.isfinite(list(report["sets"][name]["losses"].values())).all()
        assert sample.provenance["edits"][0]["edit"] == "transplant"
