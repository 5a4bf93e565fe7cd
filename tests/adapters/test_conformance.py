import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from gansynth.bank.draw_log import summarise
from gansynth.bank.reader import BankReader
from gansynth.bank.supervisor import ProducerSupervisor
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, case_record, lineage_of
from gansynth.hosts.mixer import MixerConfig
from gansynth.runtime import processes
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import sha256_file
from gansynth.sampling import evaluation_data
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.adapters.kits import COMMANDED, MARK, Kit, command, kit_of
from tests.conftest import content
from tests.disks import files_of_at_most

EXPORTING = pytest.mark.parametrize("kit", ["nnunet", "deepmedic", "yolo"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def few_samples() -> Iterator[None]:
    """Dry runs draw no more of a generator than they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_data, "DRAWN", evaluation_data.FEWEST)
        yield


@pytest.fixture(autouse=True)
def idle(monkeypatch) -> None:
    """Nothing here may start a process."""

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(processes, "run", started)
    monkeypatch.setattr(ProducerSupervisor, "__init__", started)


@pytest.fixture
def refused(refuse) -> Callable[..., None]:
    """The dry run ends in one line, and neither the data nor the results are touched."""

    def run(kit: Kit, *more: object, code: int, says: list[str]) -> None:
        refuse(*kit.words(*more, "--dry-run"), code=code, says=says, keep=[kit.home])
        assert not kit.output.exists()

    return run


def seen_with(kit: Kit, how: str) -> tuple[dict[str, Any], str]:
    """The lineage of the run, and a held-out case that it has seen all the same."""
    source = kit.adapter().source
    held = source.held_out_ids[0]
    record = case_record(source, held).to_json()
    ids = {"the case itself": [], "same subject": ["id"]}.get(how, ["id", "subject"])
    record |= dict.fromkeys(ids, "another")
    if how != "same content":
        record |= {"sha256": "0" * 64, "image": "0" * 64}
    if how in ("the case itself", "same subject"):
        record["prints"] = ()
    lineage = kit.manifest["lineage"]
    if how == "near-identical":  # of pictures, in one data set, neighbours may look alike
        lineage["dataset"] = f"{lineage['dataset']} elsewhere"
    return {**lineage, "cases": [*lineage["cases"], record]}, held


@pytest.mark.parametrize(
    "how", ["the case itself", "same content", "near-identical", "same subject"]
)
def test_a_generator_that_has_seen_a_held_out_case_is_refused(kit, refused, how):
    lineage, held = seen_with(kit, how)
    run = kit.changed(lineage=lineage)
    refused(kit, "--generator", run, code=6, says=["leakage", held, how])


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_a_bank_that_has_seen_a_held_out_case_is_refused(kit, refuse, dry):
    lineage, held = seen_with(kit, "the case itself")
    bank = kit.bank(lineage=Lineage.from_json(lineage))
    says = ["leakage: the bank", held]
    refuse(*kit.training(bank, *dry), code=6, says=says, keep=[kit.home, bank])
    assert not kit.output.exists()


def test_a_host_itself_refuses_a_leak_whoever_starts_it(kit):
    bank = kit.bank(lineage=Lineage.from_json(seen_with(kit, "same subject")[0]))
    settings = dict(word.removeprefix("--set=").split("=", 1) for word in kit.lasting())
    settings |= kit.program
    settings |= {kit.results: str(kit.output)}
    request = AugmentRequest(target=kit.host, ratio="1:1", bank=bank, set=settings)
    with pytest.raises(IntegrityFault, match="leakage"):
        kit.adapter().start(request)
    assert not kit.output.exists()


@pytest.mark.parametrize("what", ["changed", "new"])
def test_training_cases_that_are_not_those_of_the_fit_are_refused(kit, refused, what):
    lineage = kit.manifest["lineage"]
    last = lineage["cases"][-1]
    if what == "changed":
        last["sha256"] = "0" * 64
    else:
        lineage["cases"].pop()
    words = {"changed": "is not the one the run was fitted on", "new": "not in that fit"}
    run = kit.changed(lineage=lineage)
    refused(kit, "--generator", run, code=6, says=[last["id"], words[what]])


def test_a_bank_that_lacks_training_cases_of_data_of_another_name_is_refused(kit, refused):
    lineage = lineage_of(kit.adapter().source)
    lineage = replace(lineage, dataset="another", cases=lineage.cases[1:])
    bank = kit.bank(lineage=lineage)
    says = ["its samples are made of another, which lacks 1 of"]
    refused(kit, *kit.where, "--bank", bank, code=6, says=says)


def test_other_data_or_another_fold_than_the_fits_are_refused(kit, refused):
    words, says = kit.elsewhere()
    refused(kit, *words, "--generator", kit.run, code=6, says=says)


@EXPORTING
def test_data_of_another_kind_are_refused(kit):
    with pytest.raises(UsageFault, match=f"expected {kit.host}:"):
        type(kit.adapter())(ToySource(3))


def test_a_sample_without_labels_or_boxes_is_not_let_in(kit):
    adapter = kit.adapter()
    case = adapter.source.load(adapter.source.train_ids[0])
    with pytest.raises(DataFault, match="no boxes" if kit.host == "yolo" else "no labels"):
        adapter.finalise(Sample(case.image))


def test_a_bank_of_another_space_is_refused(kit, refused):
    lineage = lineage_of(kit.adapter().source)
    key = list(lineage.host)[-1]
    bank = kit.bank(lineage=replace(lineage, host={**lineage.host, key: "another"}))
    refused(kit, *kit.where, "--bank", bank, code=6, says=["space: ", f"{key}: 'another' != "])


def test_a_bank_of_other_channels_or_classes_is_refused(kit, refused):
    schema = kit.adapter().schema
    for key in kit.same:
        names: Any = getattr(schema, key)
        other: Any = tuple(f"{name}!" for name in names)
        if key == "labels":
            other = dict(zip(other, names.values(), strict=True))
        bank = kit.bank(key, schema=replace(schema, **{key: other}))
        says = [str(bank), f"samples have the {key.replace('_', ' ')}", "!", "Make the bank again"]
        refused(kit, *kit.where, "--bank", bank, code=3, says=says)


@pytest.mark.parametrize("scale", [1 / 255, 255])
@pytest.mark.parametrize("looks", [True, False], ids=["", "the host does not look"])
def test_a_bank_in_other_units_is_refused(kit, refused, monkeypatch, scale, looks):
    bank = kit.bank(look=lambda image: image * scale)
    if not looks:
        monkeypatch.setattr(type(kit.adapter()), "check", lambda *_: None)
    says = [f"{bank}: channel 0: its samples have the median", "within a factor of 10"]
    refused(kit, *kit.where, "--bank", bank, code=3, says=says)


def test_a_generator_of_other_units_fills_no_bank(kit, monkeypatch):
    draw = Sampler.draw

    def grey(self: Any, first: int, count: int) -> list[Sample]:
        return [replace(s, image=s.image / np.float32(255)) for s in draw(self, first, count)]

    monkeypatch.setattr(Sampler, "draw", grey)
    with pytest.raises(DataFault, match=f"{kit.run}: channel 0: its samples have the median"):
        kit.filled()
    assert BankReader(kit.folder / "filled").count() == 0


@pytest.mark.fault(3)
def test_a_damaged_bank_is_refused(kit, refused):
    bank = kit.bank()
    sample = next(bank.glob("sample-*"))
    sample.write_bytes(sample.read_bytes()[:-1] + b"!")
    refused(kit, *kit.where, "--bank", bank, code=6, says=[str(sample)])


def test_a_generator_of_label_maps_is_refused(kit, refused):
    run = kit.changed(capabilities={**kit.manifest["capabilities"], "draws": "labels"})
    refused(kit, "--generator", run, code=2, says=[str(run), "label maps of images"])


@pytest.mark.parametrize("kit", COMMANDED[1:], indirect=True)
def test_a_folder_that_holds_something_is_left_alone(kit, refuse):
    kit.output.mkdir()
    (kit.output / "thesis.txt").touch()
    says = [f"{kit.output}: holds thesis.txt, expected a new or empty folder"]
    for dry in ((), ("--dry-run",)):
        refuse(*kit.training(kit.bank("real" + "".join(dry)), *dry), code=2, says=says)
    assert content(kit.output).keys() == {"thesis.txt"}


@dataclass
class Planned:
    """A dry run with the data taken from the generator."""

    kit: Kit
    result: Result

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.result.stdout)
        return found


@pytest.fixture(scope="module", params=COMMANDED)
def planned(request, tmp_path_factory) -> Planned:
    kit = kit_of(request.param, tmp_path_factory.mktemp("planned"), request.getfixturevalue)
    before = content(kit.home), content(kit.run), content(kit.folder)
    result = command(*kit.words("--generator", kit.run, *kit.lasting(), "--dry-run", "--json"))
    assert result.exit_code == 0, result.stderr
    assert (content(kit.home), content(kit.run), content(kit.folder)) == before
    return Planned(kit, result)


def test_a_dry_run_says_what_the_run_would_do_and_how_long_drawing_takes(planned):
    kit, source, found = planned.kit, planned.kit.adapter().source, planned.document
    said = {
        "dry_run": True,
        "target": kit.host,
        "fold": "0",
        "training_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
        "generator": str(kit.run),
        "ratio": "1:1",
        "schedule": "constant",
        "synthetic_share": 0.5,
        "bank": "64 samples, kept fresh, at most 2 % overhead",
    }
    assert {key: found[key] for key in said} == said
    assert found["leakage"].startswith("none")
    more = ("synthetic_draws", "seconds_per_sample", "seconds_before_training", "bank_bytes")
    assert min(found[key] for key in more) > 0
    assert "not known" in found["training_time_and_memory"]


def test_data_and_fold_are_the_generators_and_it_says_so(planned):
    asked = planned.kit.manifest["request"]
    assert planned.document["data"] == planned.kit.manifest["lineage"]["dataset"]
    told = f"as {planned.kit.run} was fitted: data {asked['kind']}:{asked['where']}"
    assert told in planned.result.stderr
    assert "fold 0" in planned.result.stderr


@pytest.fixture
def renamed(kit, tmp_path) -> Kit:
    found: Kit = kit.renamed(tmp_path / "Elsewhere")
    return found


@pytest.mark.parametrize("kit", COMMANDED, indirect=True)
def test_a_data_set_that_was_renamed_is_the_same(renamed, run_cli):
    result = run_cli(
        *renamed.words(*renamed.where, "--generator", renamed.run, "--dry-run", "--json")
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["data"] != renamed.manifest["lineage"]["dataset"]


def test_people_are_held_out_whatever_the_data_set_is_called(renamed, refused):
    source = renamed.adapter().source
    lineage = renamed.manifest["lineage"]
    person = source.header(source.held_out_ids[0]).subject
    lineage["cases"].append({"id": "a visit before", "subject": person, "sha256": "f" * 64})
    run = renamed.changed(lineage=lineage)
    says = ["leakage", "a visit before"]
    refused(renamed, *renamed.where, "--generator", run, code=6, says=says)


def test_samples_are_the_same_from_where_the_data_set_is_now(renamed, run_cli, tmp_path):
    words = ("sample", renamed.run, "-n", "1", "--device", "cpu", "-q")
    before = run_cli(*words, "-o", tmp_path / "one")
    after = run_cli(*words, "-o", tmp_path / "two", *renamed.place)
    assert (before.exit_code, after.exit_code) == (0, 0), after.stderr
    one, two = (sorted((tmp_path / name).glob("*/*.nii.gz")) for name in ("one", "two"))
    folders = {"images"} if renamed.host == "yolo" else {"images", "labels"}
    assert {path.parent.name for path in one} == folders
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] != []


@pytest.mark.parametrize("kit", ["yolo"], indirect=True)
def test_a_fit_goes_on_where_the_data_set_is_now(renamed, run_cli, tmp_path):
    run = shutil.copytree(renamed.run, tmp_path / "run")
    loop = ("--set=steps=3", "--set=batch_size=2", "--set=sample_every=2", "--device", "cpu")
    words = ("fit", "cpggan", *renamed.where, "--read", "size=32x32", "-o", run, *loop, "--json")
    result = run_cli(*words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resumed_at"] == 2


@pytest.mark.parametrize("kit", ["yolo"], indirect=True)
@pytest.mark.parametrize("command", ["sample", "evaluate", "turing-test"])
def test_where_the_data_set_was_moved_the_way_out_is_named(command, kit, tmp_path, refuse):
    asked = {**kit.manifest["request"], "where": str(tmp_path / "gone" / "data.yaml")}
    with pytest.raises(GansynthError) as fault:
        open_source(SourceRequest(**asked))
    says = ["gone", "If it was moved", "--data KIND:WHERE"]
    refuse(command, kit.changed(request=asked), code=fault.value.exit_code, says=says)


@pytest.mark.parametrize("ratio", ["1:1", "2:1", "1:3", "0:1"])
def test_the_ratio_is_exact_over_many_batches_and_logged_draw_by_draw(kit, ratio):
    asked, log = Ratio.parse(ratio), kit.folder / "draws"
    plan: MixerConfig[Any] = MixerConfig(kit.bank(look=lambda image: image + MARK), asked, log=log)
    drawn = synthetic = 0
    for batch in kit.batches(plan, 12):
        drawn += len(batch)
        synthetic += sum(batch)
        assert abs(synthetic - asked.p * drawn) < 1
    counts = summarise(log)
    assert (counts.real, counts.synthetic, counts.fell_back) == (drawn - synthetic, synthetic, 0)
    assert counts.distinct == 6


@pytest.mark.fault(40)
@pytest.mark.parametrize("how", ["damaged", "vanished"])
def test_where_a_bank_breaks_real_cases_take_the_place_of_samples(kit, how):
    bank, log = kit.bank(look=lambda image: image + MARK), kit.folder / "draws"
    batches = kit.batches(MixerConfig(bank, Ratio(1, 1), log=log, patience=1), 4)
    assert any(next(batches))
    for sample in bank.glob("sample-*"):
        if how == "damaged":
            sample.write_bytes(b"damaged")
        else:
            sample.unlink()
    assert not any(map(any, batches))
    assert summarise(log).fell_back > 0


@dataclass
class Exported:
    """A data set on disk, two real cases for each sample, and what the command said."""

    kit: Kit
    report: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(self.report["record"]).read_text())
        return found


@pytest.fixture(scope="module", params=["nnunet", "deepmedic", "yolo"])
def exported(request, tmp_path_factory) -> Exported:
    kit = kit_of(request.param, tmp_path_factory.mktemp("exported"), request.getfixturevalue)
    before = content(kit.home)
    result = command(*kit.export(kit.bank(samples=8), "--json"))
    assert result.exit_code == 0, result.stderr
    assert content(kit.home) == before
    return Exported(kit, json.loads(result.stdout))


def test_an_export_is_where_it_says_and_leaves_nothing_beside(exported):
    target = exported.kit.target
    assert exported.report["folder"] == str(target)
    assert target.is_dir()
    assert [path for path in target.parent.iterdir() if path.name.startswith(".")] == []


def test_the_record_of_an_export_has_its_lineage_and_the_held_out_cases(exported):
    source, record = exported.kit.adapter().source, exported.record
    assert [case["id"] for case in record["lineage"]["cases"]] == list(source.train_ids)
    assert record["held_out"] == list(source.held_out_ids)
    told = record["samples"]
    assert {one["case"] for one in told.values()} <= set(source.train_ids)
    assert len(told) == {"nnunet": 2, "deepmedic": 2, "yolo": 8}[exported.kit.host]
    own = "gansynth.json" if exported.kit.host == "nnunet" else "manifest.json"
    assert json.loads((exported.kit.target / own).read_text())["manifest_sha256"] == "0" * 64


@pytest.mark.parametrize("exported", ["deepmedic", "yolo"], indirect=True)
def test_the_manifest_has_the_hash_of_every_other_file(exported):
    target = exported.kit.target
    files = [p for p in target.rglob("*") if p.is_file() and p.name != "provenance.json"]
    assert exported.record["files"] == {str(p.relative_to(target)): sha256_file(p) for p in files}


def test_what_is_there_is_not_exported_over(exported, refuse):
    kit = exported.kit
    bank = kit.folder / "bank"
    says = ["Dataset510_Plus has that number" if kit.host == "nnunet" else "exists already"]
    refuse(*kit.export(bank), code=2, says=says, keep=[kit.target])


@EXPORTING
def test_a_dry_run_of_an_export_counts_and_writes_nothing(kit, run_cli):
    words = kit.export(kit.bank(samples=8), "--dry-run", "--json")
    before = sorted(kit.folder.rglob("*"))
    result = run_cli(*words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["dry_run"]
    assert sorted(kit.folder.rglob("*")) == before


@pytest.mark.fault(31)
@EXPORTING
def test_a_full_disk_ends_an_export_in_one_line_with_nothing_half(kit, run_cli, one_line):
    words = kit.export(kit.bank(samples=8))
    before = sorted(kit.target.parent.iterdir())
    with files_of_at_most(1000):
        result = run_cli(*words)
    one_line(result.exit_code, result.stderr, 4, [kit.target.name, "Make room"])
    assert sorted(kit.target.parent.iterdir()) == before


@EXPORTING
@pytest.mark.parametrize(
    ("samples", "more", "code", "says"),
    [
        ("fine", ("--ratio", "1:0"), 2, "no synthetic"),
        ("fine", ("--schedule", "anneal:50%-100%"), 2, "--schedule"),
        ("fine", ("--ratio", "1:9"), 2, "holds 8"),
        ("of a leak", (), 6, "leakage: the bank"),
        ("in other units", (), 3, "bank: channel 0: its samples have the median"),
    ],
    ids=["none", "schedule", "few", "leak", "units"],
)
def test_orders_that_make_no_data_set_are_refused(kit, refuse, samples, more, code, says):
    told: dict[str, Any] = {}
    if samples == "of a leak":
        told = {"lineage": Lineage.from_json(seen_with(kit, "same subject")[0])}
    elif samples == "in other units":
        told = {"look": lambda image: image * 255}
    refuse(*kit.export(kit.bank(samples=8, **told), *more), code=code, says=[says])
    assert not kit.target.exists()


@pytest.mark.parametrize("kit", ["segmenter"], indirect=True)
def test_a_host_without_data_sets_of_its_own_exports_none(kit, refuse):
    says = ["--export new: segmenter has no data sets to write"]
    words = ("augment", "--target", kit.host, *kit.where, "--bank", kit.bank(), "--ratio", "1:1")
    refuse(*words, "--export", "new", code=2, says=says)
