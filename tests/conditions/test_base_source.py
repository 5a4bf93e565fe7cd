import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from gansynth.conditions.condition_source import ConditionSource, inherited_request, open_base
from gansynth.core.capabilities import Capabilities
from gansynth.core.identity import Door, refuse_seen
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.requests.sections import SampleSection
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, LabelArray, Schema
from gansynth.core.source import (
    CaseSource,
    SourceRequest,
    case_content,
    case_record,
    case_records,
    lineage_of,
)
from gansynth.core.space import Space
from gansynth.data.held_out import held_out_of
from gansynth.hosts.contract.record import check_same, describe_session
from gansynth.sampling.request_checks import GeneratorInfo, check_request, read_request
from gansynth_deepmedic.intake import DeepMedicIntake
from gansynth_nnunet.intake import NnunetIntake
from tests.expected import raises_fault
from tests.offered import offered

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "core": 1, "rim": 2}, (1.0, 1.0, 1.0))
TURNED = replace(SCHEMA, channels=("FLAIR", "T1"))
SHAPE = (4, 5, 6)


class Shelf(CaseSource):
    """Cases ``a`` and ``b``; ``c`` is held out; their channels hold 10, 20, ...

    ``shows`` says which image a case has, if another's; "" for nothing at all.
    """

    def __init__(
        self,
        schema: Schema = SCHEMA,
        labels: LabelArray | None = None,
        host: Mapping[str, Any] | None = None,
        name: str = "shelf",
        shows: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> None:
        self._schema, self._labels, self._host, self._name = schema, labels, host or {}, name
        self._shows = shows or {}
        self.request = SourceRequest("shelf", name, **{"fold": "all", **asked})

    name = property(lambda self: self._name)
    schema = property(lambda self: self._schema)
    space = property(lambda self: Space("crop", SHAPE, host=self._host))
    train_ids = property(lambda self: ("a", "b"))
    held_out_ids = property(lambda self: ("c",))

    def load(self, case_id: str) -> Case:
        shown = self._shows.get(case_id, case_id)
        size = (len(self.schema.channels), *SHAPE)
        image = np.zeros(size, np.float32)
        if shown:
            means = np.arange(1, size[0] + 1).reshape(-1, 1, 1, 1) * 10
            image += np.random.default_rng(ord(shown)).normal(means, 1, size).astype(np.float32)
        return Case(case_id, f"person {case_id}", image, self._labels)


def numbered(*values: int) -> LabelArray:
    labels = np.zeros(SHAPE, np.int16)
    labels.flat[: len(values)] = values
    return labels


def test_base_cases_without_labels_are_background_with_one_warning(caplog):
    base = ConditionSource(Shelf(), SCHEMA)
    with caplog.at_level(logging.WARNING, "gansynth"):
        labels: Any = base.load("a").labels
        assert not labels.any()
        base.load("b")
    (record,) = caplog.records
    assert "--label-source shelf:shelf: cases without labels (a, for" in record.getMessage()


def test_lineage_is_of_the_channels_that_the_run_has():
    base = ConditionSource(Shelf(TURNED), SCHEMA)
    lineage = lineage_of(base)
    assert (lineage.dataset, lineage.fold, lineage.cases[1].subject) == ("shelf", "all", "person b")
    assert lineage.cases[1].sha256 == case_content(base, "b")
    assert lineage.cases[1].image == base.decode("b").image_sha256
    assert np.array_equal(base.decode("b").image, base.load("b").image)
    blank = Shelf(labels=numbered(0), shows={"a": "", "b": ""})
    assert len({case_record(blank, case_id).sha256 for case_id in "ab"}) == 2


@pytest.mark.parametrize(
    ("theirs", "held", "leaks"),
    [({}, {}, False), ({}, {"c": "b"}, True), ({"b": ""}, {"c": ""}, False)],
    ids=["other", "same", "blank"],
)
def test_guard_finds_a_held_out_image_whatever_its_labels(theirs, held, leaks):
    lineage = lineage_of(ConditionSource(Shelf(shows=theirs), SCHEMA))
    host = Shelf(labels=numbered(1, 2), name="host", shows=held)
    records = case_records(host, host.held_out_ids)
    if leaks:
        with raises_fault("lineage.held-out-case-seen"):
            refuse_seen(lineage, held_out_of(host, records), Door())
    else:
        refuse_seen(lineage, held_out_of(host, records), Door())


@pytest.mark.parametrize(
    ("schema", "own", "expected"),
    [
        ({"channels": ("T1",)}, {}, "conditions.label-source-channels-differ"),
        (
            {"labels": {"background": 0}, "spacing": (1.0, 1.0), "axes": "HW"},
            {},
            "conditions.label-source-axes-differ",
        ),
        ({"labels": {"background": 0, "cyst": 1}}, {}, "conditions.label-source-label-unknown"),
        ({"has_outside": True}, {}, "conditions.label-source-has-outside"),
        ({}, {"classes": ("ill", "well")}, "conditions.label-source-classes-differ"),
    ],
)
def test_a_source_that_does_not_fit_the_run_is_refused(schema, own, expected):
    with raises_fault(expected):
        ConditionSource(Shelf(replace(SCHEMA, **schema)), replace(SCHEMA, **own))


@pytest.fixture
def shelved() -> Iterator[dict[str, Any]]:
    """Offers the kind ``shelf`` with what is put into a dictionary."""
    more: dict[str, Any] = {}
    shelf = {"shelf": lambda request: Shelf(**{"fold": request.fold, **more})}
    with offered("shelved", sources=shelf):
        yield more


MR = {"intensity": [{"modality": "mr"}, {"modality": "none"}], "orientation": "RAS"}
MR_TURNED = {**MR, "intensity": MR["intensity"][::-1]}
ASKED = {"kind": "shelf", "where": "other"}


def learnt(scheme: str, mean: float) -> dict[str, Any]:
    means = {"0": {"mean": mean}, "1": {"mean": 0}}
    return {
        "normalization_schemes": [scheme, "ZScore"],
        "foreground_intensity_properties_per_channel": means,
    }


@pytest.mark.parametrize(
    ("schema", "theirs", "own", "expected", "names"),
    [
        (SCHEMA, MR, MR, "", ""),
        (TURNED, MR_TURNED, MR, "", ""),
        (TURNED, MR, MR, "conditions.label-source-intensities-differ", "intensity is "),
        (SCHEMA, learnt("ZScore", 1), learnt("ZScore", 2), "", ""),
        (SCHEMA, learnt("CTNormalization", 1), learnt("CTNormalization", 2),
         "conditions.label-source-intensities-differ",
         "foreground_intensity_properties_per_channel"),
        (replace(SCHEMA, spacing=(1.009, 1.0, 1.0)), MR, MR, "", ""),
        (replace(SCHEMA, spacing=(1.02, 1.0, 1.0)), MR, MR,
         "conditions.label-source-spacing-differs", "1.02 x 1 x 1 mm"),
    ],
)  # fmt: skip
def test_open_base_compares_intensities_and_voxel_sizes(
    shelved, schema, theirs, own, expected, names
):
    shelved.update(schema=schema, host=theirs)
    if expected:
        with raises_fault(expected, names=names):
            open_base(ASKED, Shelf(host=own))
    else:
        assert open_base(ASKED, Shelf(host=own)).train_ids == ("a", "b")


def test_a_base_takes_fold_and_read_options_of_the_run_where_they_mean_the_same(shelved):
    shelved.update(host=MR, name="mine")
    assert open_base(ASKED, Shelf(host=MR, name="mine", fold="3")).request.fold == "3"
    assert open_base({**ASKED, "fold": "1"}, Shelf(host=MR, name="mine")).request.fold == "1"
    others = {"a": "x", "b": "y", "c": "z"}
    named_alike = Shelf(host=MR, name="mine", fold="3", shows=others)
    named_alike.request = replace(named_alike.request, where="elsewhere")
    assert open_base(ASKED, named_alike).request.fold == "all"
    own = SourceRequest("nifti", "/ill", "2", "3d", "p", "s.csv", "/root", {"spacing": "1"})
    other = {"kind": "nifti", "where": "/free", "read": {"labels": "y:1"}}
    told = {"spacing": "1", "labels": "y:1"}
    wanted = SourceRequest("nifti", "/free", "all", "3d", "p", None, "/root", told)
    assert inherited_request(other, own) == wanted
    assert inherited_request({"kind": "msd", "where": "x"}, own) == SourceRequest("msd", "x", "all")


PLAIN = AugmentRequest(target="toy", ratio="1:1", generator="run")
OTHERS = PLAIN.replace(
    label_source="nifti:/free",
    lesions="pairs=ordered",
    filter="range",
)


def test_a_training_with_another_sample_request_or_of_an_earlier_version_does_not_resume():
    one, other = (describe_session(request, None) for request in (PLAIN, OTHERS))
    check_same(Path("out"), one, one, Path("out"))
    with raises_fault("hosts.folder-holds-other-training") as caught:
        check_same(Path("out"), one, other, Path("out"))
    for key in (
        "label_source not set there and {",
        "lesions not set there",
        "filters []",
    ):
        assert key in str(caught.value)
    with raises_fault("hosts.training-of-earlier-version"):
        check_same(
            Path("out"), {"ratio": "1:1", "usual_augmentation": True}, {"ratio": "1:1"}, Path("out")
        )


def test_label_source_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("free").mkdir()
    Path("004").mkdir()
    for text, where in (
        ("nifti:free", str(tmp_path / "free")),
        ("slices:nifti:free", f"nifti:{tmp_path / 'free'}"),
        ("nnunet:004", "004"),
    ):
        assert (read_request(SampleSection(label_source=text)).label_source or {})["where"] == where


@pytest.mark.parametrize(
    ("takes", "draws", "per_class", "expected"),
    [
        ({"labels"}, "image", True, "sampling.label-source-with-per-class"),
        ({"boxes"}, "image", False, "sampling.label-source-with-boxes"),
        (set(), "both", False, "sampling.label-source-without-label-maps"),
        ({"labels", "lesion"}, "image", False, "sampling.label-source-with-inserted-lesions"),
    ],
)
def test_generators_that_cannot_take_other_cases_refuse_them(takes, draws, per_class, expected):
    asking = SampleRequest(label_source={"kind": "nifti", "where": "/free"})
    refusing = GeneratorInfo("it", Capabilities(frozenset(takes), draws), per_class)
    with raises_fault(expected):
        check_request(asking, refusing)
    check_request(asking, GeneratorInfo("it", Capabilities()))
    check_request(SampleRequest(), refusing)


@pytest.mark.parametrize("option", ["label_source", "unlabelled"])
def test_hosts_that_cannot_take_samples_of_other_cases_refuse_them(option):
    samples, flag = PLAIN.replace(**{option: "nifti:/free"}).samples, option.replace("_", "-")
    with raises_fault("deepmedic.conditions-of-other-cases", names=f"--{flag}"):
        object.__new__(DeepMedicIntake).check_run(RunFolder(Path("run")), samples)
    intake = cast(Any, SimpleNamespace(converts=lambda run: True))
    with raises_fault("nnunet.other-cases-with-converted-samples"):
        NnunetIntake.check_run(intake, RunFolder(Path("run")), samples)
