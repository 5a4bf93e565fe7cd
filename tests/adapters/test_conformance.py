import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, case_record, lineage_of
from gansynth.hosts import augment as api
from gansynth.hosts.contract.host import framework
from gansynth.hosts.deciding import dry_run
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.runtime import measuring, processes
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.files import sha256_file
from gansynth.sampling import evaluation_data
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource, check_host
from tests.adapters.kits import COMMANDED, HOSTS, MARK, Kit, command, kit_of
from tests.conftest import content
from tests.disks import files_of_at_most
from tests.expected import raises_fault

EXPORTING = pytest.mark.parametrize("kit", ["nnunet", "deepmedic", "yolo"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def idle() -> Iterator[None]:
    """Nothing here may start a process; dry runs draw no more of a generator than they need."""

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "run", started)
        patch.setattr(api, "time_of", lambda *_: {"training_hours": 1.5})
        patch.setattr(ProducerSupervisor, "__init__", started)
        patch.setattr(evaluation_data, "DRAWN", evaluation_data.FEWEST)
        yield


@pytest.fixture(scope="module")
def kits() -> Iterator[dict[str, tuple[Kit, dict[str, str]]]]:
    """What the tests share: no data are touched in any of them, and no training leaves a result."""
    found: dict[str, tuple[Kit, dict[str, str]]] = {}
    yield found
    for kit, before in found.values():
        assert content(kit.home) == before
        assert not kit.output.exists()


@pytest.fixture(params=HOSTS)
def kit(request, kits, tmp_path_factory) -> Kit:
    """Each host; its results must not be there in the end."""
    host = request.param
    if host not in kits:
        made = kit_of(host, tmp_path_factory.mktemp(host), request.getfixturevalue)
        made.intake()  # nnU-Net's splits are made when they are first asked for
        kits[host] = made, content(made.home)
    found: Kit = kits[host][0]
    return found


@pytest.fixture
def bank(kit) -> Path:
    """Eight samples; not to be changed."""
    found: Path = kit.folder / "bank"
    return found if found.exists() else kit.bank(samples=8)


@pytest.fixture
def marked(kit) -> Path:
    """Six samples that are told from real cases; not to be changed."""
    found: Path = kit.folder / "marked"
    return found if found.exists() else kit.bank("marked", look=lambda image: image + MARK)


def seen_with(kit: Kit, how: str) -> tuple[dict[str, Any], str]:
    """The lineage of the run, and a held-out case that it has seen all the same."""
    source = kit.intake().source
    held = source.held_out_ids[0]
    record = case_record(source, held).to_json()
    ids = {"the case itself": [], "same subject": ["id"]}.get(how, ["id", "subject"])
    record |= dict.fromkeys(ids, "another")
    if how != "same content":
        record |= {"sha256": "0" * 64, "image": "0" * 64}
    if how in ("the case itself", "same subject"):
        record["prints"] = ()
    lineage = kit.manifest["lineage"]
    return {**lineage, "cases": [*lineage["cases"], record]}, held


Refused = tuple[tuple[object, ...], list[str]]
"""Words that name samples, and what is said of these."""


def leak(how: str) -> Callable[[Kit], Refused]:
    def case(kit: Kit) -> Refused:
        lineage, held = seen_with(kit, how)
        return ("--generator", kit.changed(lineage=lineage)), ["leakage", held, how]

    return case


def new_case(kit: Kit) -> Refused:
    lineage = kit.manifest["lineage"]
    last = lineage["cases"].pop()
    return ("--generator", kit.changed(lineage=lineage)), [last["id"], "not in that fit"]


def other_data(kit: Kit) -> Refused:
    words, says = kit.elsewhere()
    return (*words, "--generator", kit.run), says


def label_maps(kit: Kit) -> Refused:
    run = kit.changed(capabilities={**kit.manifest["capabilities"], "draws": "labels"})
    return ("--generator", run), [str(run), "label maps of images"]


def lacking_bank(kit: Kit) -> Refused:
    lineage = lineage_of(kit.intake().source)
    bank = kit.bank("lacking", lineage=replace(lineage, dataset="other", cases=lineage.cases[1:]))
    return (*kit.where, "--bank", bank), ["its samples are made of other, which lacks 1 of"]


def bank_of_another_space(kit: Kit) -> Refused:
    lineage = lineage_of(kit.intake().source)
    key = list(lineage.host)[-1]
    bank = kit.bank("space", lineage=replace(lineage, host={**lineage.host, key: "another"}))
    return (*kit.where, "--bank", bank), ["space: ", f"{key}: another, here "]


def damaged_bank(kit: Kit) -> Refused:
    bank = kit.bank("damaged", samples=1)
    (sample,) = bank.glob("sample-*")
    sample.write_bytes(sample.read_bytes()[:-1] + b"!")
    return (*kit.where, "--bank", bank), [str(sample)]


REFUSED: dict[str, tuple[int, Callable[[Kit], Refused]]] = {
    **{
        how: (6, leak(how))
        for how in ("the case itself", "same content", "near-identical", "same subject")
    },
    "a case that is new": (6, new_case),
    "other data": (6, other_data),
    "a generator of label maps": (2, label_maps),
    "a bank without a case": (6, lacking_bank),
    "a bank of another space": (6, bank_of_another_space),
    "a damaged bank": (6, damaged_bank),
}


@pytest.mark.fault(3, of="damaged")
@pytest.mark.parametrize("case", REFUSED)
def test_samples_that_must_not_enter_are_refused_before_a_training(kit, refuse, case):
    code, words_of = REFUSED[case]
    words, says = words_of(kit)
    refuse(*kit.words(*words, "--dry-run"), code=code, says=says)


def test_a_leak_is_refused_whoever_starts_the_training(kit, refuse):
    lineage, held = seen_with(kit, "the case itself")
    bank = kit.bank("leak", lineage=Lineage.from_json(lineage))
    for dry in ((), ("--dry-run",)):
        says = ["leakage: the bank", held]
        refuse(*kit.training(bank, *dry), code=6, says=says, keep=[bank])
    settings = dict(word.removeprefix("--set=").split("=", 1) for word in kit.lasting())
    settings |= {**kit.program, kit.results: str(kit.output)}
    with raises_fault("lineage.held-out-case-seen"):
        kit.session(bank=bank, set=settings).start()


def test_a_bank_of_other_channels_or_classes_is_refused(kit, refuse):
    schema = kit.intake().schema
    for key in kit.same:
        names: Any = getattr(schema, key)
        other: Any = tuple(f"{name}!" for name in names)
        if key == "labels":
            other = dict(zip(other, names.values(), strict=True))
        bank = kit.bank(key, schema=replace(schema, **{key: other}))
        says = [str(bank), f"samples have the {key.replace('_', ' ')}", "!", "Make the bank again"]
        refuse(*kit.words(*kit.where, "--bank", bank, "--dry-run"), code=3, says=says)


def test_samples_in_other_units_are_refused(kit, refuse):
    for name, scale in (("dark", 1 / 255), ("bright", 255)):
        bank = kit.bank(name, look=lambda image, scale=scale: image * scale)
        says = [f"{bank}: channel 0: its samples have the median", "within a factor of 10"]
        refuse(*kit.words(*kit.where, "--bank", bank, "--dry-run"), code=3, says=says)


def test_a_generator_of_other_units_fills_no_bank(kit, monkeypatch):
    draw = Sampler.draw

    def grey(self: Any, first: int, count: int) -> list[Sample]:
        return [replace(s, image=s.image / np.float32(255)) for s in draw(self, first, count)]

    monkeypatch.setattr(Sampler, "draw", grey)
    with raises_fault("units.samples-differ-from-real", names=kit.run):
        kit.filled()
    assert BankReader(kit.folder / "filled").count() == 0


@EXPORTING
def test_an_adapter_keeps_the_contract_of_hosts(kit, tmp_path):
    report = check_host(framework(kit.host), kit.intake().source, workspace=tmp_path)
    assert {check.verdict for check in report.checks} == {"passed"}, report.failed


@pytest.mark.slow  # two processes import torch
@pytest.mark.parametrize("kit", ["nnunet", "segmenter"], indirect=True)
def test_two_producers_fill_a_bank_with_the_bytes_of_one(kit):
    one, two = (kit.filled(13, name=f"by-{count}", producers=count) for count in (1, 2))
    files = [sorted(path.name for path in bank.glob("sample-*")) for bank in (one, two)]
    assert files[0] == files[1] != []
    for name in files[0]:
        assert (one / name).read_bytes() == (two / name).read_bytes()


OTHER_DATA = {
    "nnunet": "nnunet.data-of-other-kind",
    "deepmedic": "deepmedic.data-of-other-kind",
    "yolo": "yolo.data-not-for-detectors",
}


def test_other_kinds_of_data_and_samples_without_truth_are_not_let_in(kit):
    intake = kit.intake()
    if kit.host != "segmenter":  # which takes any
        with raises_fault(OTHER_DATA[kit.host], names=f"{kit.host}:"):
            type(intake)(ToySource(3), kit.host)
    case = intake.source.load(intake.source.train_ids[0])
    with raises_fault(f"intake.sample-without-{'boxes' if kit.host == 'yolo' else 'labels'}"):
        intake.finalise(Sample(case.image))


@pytest.mark.parametrize("kit", COMMANDED[1:], indirect=True)
def test_a_folder_that_holds_something_is_left_alone(kit, bank, refuse, tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "output", tmp_path)
    (tmp_path / "thesis.txt").touch()
    says = [f"{tmp_path}: holds thesis.txt, expected a new or empty folder"]
    for dry in ((), ("--dry-run",)):
        refuse(*kit.training(bank, *dry), code=2, says=says, keep=[tmp_path])


@pytest.fixture(scope="module", params=COMMANDED)
def planned(request, tmp_path_factory) -> tuple[Kit, Result]:
    """A dry run with the data taken from the generator."""
    kit = kit_of(request.param, tmp_path_factory.mktemp("planned"), request.getfixturevalue)
    if kit.host == "nnunet":  # whose data tests of other processes use meanwhile
        kit.home = shutil.copytree(kit.home, kit.folder / "own")
        asked = kit.manifest["request"] | {"root": str(kit.home)}
        kit.run = kit.changed(request=asked)
    for made in kit.home.rglob("splits_final.json"):  # by the fit
        made.unlink()
    before = [tree(folder) for folder in (kit.home, kit.run, kit.folder)]
    result = command(*kit.words("--generator", kit.run, *kit.lasting(), "--dry-run", "--json"))
    assert result.exit_code == 0, result.stderr
    assert [tree(folder) for folder in (kit.home, kit.run, kit.folder)] == before
    return kit, result


def tree(folder: Path) -> dict[Path, bytes | None]:
    """Every path below a folder, with the bytes of a file; also what is kept of cases."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def test_a_dry_run_says_what_the_run_would_do_and_how_long_drawing_takes(planned):
    kit, result = planned
    source, found, asked = kit.intake().source, json.loads(result.stdout), kit.manifest["request"]
    said = {
        "dry_run": True,
        "target": kit.host,
        "data": kit.manifest["lineage"]["dataset"],
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
    assert found["training_hours"] == 1.5
    told = f"as {kit.run} was fitted: data {asked['kind']}:{asked['where']}"
    assert told in result.stderr
    assert "fold 0" in result.stderr


@pytest.mark.parametrize("kit", COMMANDED, indirect=True)
def test_what_a_dry_run_had_no_time_for_is_unknown_not_0(kit, run_json, monkeypatch):
    monkeypatch.setattr(measuring, "BOUND", 1e-3)
    found = run_json(*kit.words("--generator", kit.run, *kit.lasting(), "--dry-run"))
    assert found["seconds_per_sample"] is found["seconds_before_training"] is None
    assert "answer" not in found["will_it_harm"]
    (typed,) = re.findall("gansynth check .* does it", found["will_it_harm"]["lines"][0])
    assert f"--generator {kit.run} " in typed


@pytest.fixture
def renamed(kit, tmp_path) -> Kit:
    found: Kit = kit.renamed(tmp_path / "Elsewhere")
    return found


@pytest.mark.parametrize("kit", COMMANDED, indirect=True)
def test_a_data_set_that_was_renamed_is_the_same_and_its_people_are_held_out(
    renamed, run_cli, run_json, refuse, tmp_path, monkeypatch
):
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})  # takes seconds
    asked = (*renamed.where, "--generator", renamed.run, "--dry-run")
    assert run_json(*renamed.words(*asked))["data"] != renamed.manifest["lineage"]["dataset"]
    words = ("sample", renamed.run, "-n", "1", "--device", "cpu", "-q")
    before = run_cli(*words, "-o", tmp_path / "one")
    after = run_cli(*words, "-o", tmp_path / "two", *renamed.place)
    assert (before.exit_code, after.exit_code) == (0, 0), after.stderr
    one, two = (sorted((tmp_path / name).glob("*/*.nii.gz")) for name in ("one", "two"))
    folders = {"images"} if renamed.host == "yolo" else {"images", "labels"}
    assert {path.parent.name for path in one} == folders
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] != []
    source, lineage = renamed.intake().source, renamed.manifest["lineage"]
    person = source.header(source.held_out_ids[0]).subject
    lineage["cases"].append({"id": "a visit before", "subject": person, "sha256": "f" * 64})
    leaks = (*renamed.where, "--generator", renamed.changed(lineage=lineage), "--dry-run")
    refuse(*renamed.words(*leaks), code=6, says=["leakage", "a visit before"])


@pytest.mark.parametrize("kit", ["yolo"], indirect=True)
def test_a_fit_goes_on_where_the_data_set_is_now(renamed, run_json, tmp_path):
    run = shutil.copytree(renamed.run, tmp_path / "run")
    loop = {"steps": 4, "batch_size": 2, "sample_every": 2, "stage_images": 1, "fade_images": 0}
    settings = [f"--set={key}={value}" for key, value in loop.items()]
    how = ("--read", "size=32x32", "-o", run, "--device", "cpu")
    assert run_json("fit", "cpggan", *renamed.where, *how, *settings)["resumed_at"] == 3


@pytest.mark.parametrize("kit", ["yolo"], indirect=True)
def test_where_the_data_set_was_moved_the_way_out_is_named(kit, tmp_path, refuse):
    asked = {**kit.manifest["request"], "where": str(tmp_path / "gone" / "data.yaml")}
    with pytest.raises(GansynthError) as fault:
        open_source(SourceRequest(**asked))
    says = ["gone", "If it was moved", "--data KIND:WHERE"]
    for name in ("sample", "evaluate", "turing-test"):
        refuse(name, kit.changed(request=asked), code=fault.value.exit_code, says=says)


@pytest.mark.parametrize("ratio", ["2:1", "1:3"])
def test_the_ratio_is_exact_over_many_batches_and_logged_draw_by_draw(kit, marked, tmp_path, ratio):
    asked, drawn, synthetic = Ratio.parse(ratio), 0, 0
    for batch in kit.batches(MixerConfig(marked, asked, log=tmp_path), 6):
        drawn += len(batch)
        synthetic += sum(batch)
        assert abs(synthetic - asked.p * drawn) < 1
    counts = summarise(tmp_path)
    assert (counts.real, counts.synthetic, counts.fell_back) == (drawn - synthetic, synthetic, 0)
    assert counts.distinct == 6


@pytest.mark.fault(40)
@pytest.mark.parametrize("how", ["damaged", "vanished"])
def test_where_a_bank_breaks_real_cases_take_the_place_of_samples(kit, marked, tmp_path, how):
    bank, log = shutil.copytree(marked, tmp_path / "bank"), tmp_path / "draws"
    batches = kit.batches(MixerConfig(bank, Ratio(1, 1), log=log, sample_timeout=1), 3)
    assert any(next(batches))
    for sample in bank.glob("sample-*"):
        if how == "damaged":
            sample.write_bytes(b"damaged")
        else:
            sample.unlink()
    assert not any(map(any, batches))
    assert summarise(log).fell_back > 0


@pytest.fixture(scope="module", params=["nnunet", "deepmedic", "yolo"])
def exported(request, tmp_path_factory) -> tuple[Kit, dict[str, Any]]:
    """A data set on disk, two real cases for each sample, and what the command said."""
    kit = kit_of(request.param, tmp_path_factory.mktemp("exported"), request.getfixturevalue)
    bank, before = kit.bank(samples=8), content(kit.home)
    result = command(*kit.export(bank, "--json"))
    assert result.exit_code == 0, result.stderr
    assert content(kit.home) == before
    return kit, json.loads(result.stdout)


def test_an_export_is_where_it_says_with_its_lineage_and_the_held_out_cases(exported):
    kit, report = exported
    source, target = kit.intake().source, kit.target
    assert report["folder"] == str(target)
    assert [path for path in target.parent.iterdir() if path.name.startswith(".")] == []
    record = json.loads(Path(report["record"]).read_text())
    assert [case["id"] for case in record["lineage"]["cases"]] == list(source.train_ids)
    assert record["held_out"] == list(source.held_out_ids)
    assert {one["case"] for one in record["samples"].values()} <= set(source.train_ids)
    assert len(record["samples"]) == (8 if kit.host == "yolo" else 2)
    own = "gansynth.json" if kit.host == "nnunet" else "manifest.json"
    assert json.loads((target / own).read_text())["manifest_sha256"] == "0" * 64
    if kit.host != "nnunet":
        files = [p for p in target.rglob("*") if p.is_file() and p.name != "provenance.json"]
        assert record["files"] == {str(p.relative_to(target)): sha256_file(p) for p in files}


def test_what_is_there_is_not_exported_over(exported, refuse):
    kit, _ = exported
    says = ["Dataset510_Plus has that number" if kit.host == "nnunet" else "exists already"]
    refuse(*kit.export(kit.folder / "bank"), code=2, says=says, keep=[kit.target])


@EXPORTING
def test_a_dry_run_of_an_export_counts_and_writes_nothing(kit, bank, run_json):
    before = sorted(kit.folder.rglob("*"))
    assert run_json(*kit.export(bank, "--dry-run"))["dry_run"]
    assert sorted(kit.folder.rglob("*")) == before


@pytest.mark.fault(31)
@EXPORTING
def test_a_full_disk_ends_an_export_in_one_line_with_nothing_half(kit, bank, run_cli, one_line):
    before = sorted(kit.target.parent.iterdir())
    with files_of_at_most(1000):
        result = run_cli(*kit.export(bank))
    one_line(result.exit_code, result.stderr, 4, [kit.target.name, "Make room"])
    assert sorted(kit.target.parent.iterdir()) == before


@EXPORTING
def test_orders_that_make_no_data_set_are_refused(kit, bank, refuse):
    lineage = Lineage.from_json(seen_with(kit, "same subject")[0])
    leaked = kit.bank("exported leak", samples=8, lineage=lineage)
    bright = kit.bank("exported", samples=8, look=lambda image: image * 255)
    for found, more, code, says in (
        (bank, ("--ratio", "1:0"), 2, "no synthetic"),
        (bank, ("--schedule", "anneal:50%-100%"), 2, "--schedule"),
        (bank, ("--ratio", "1:9"), 2, "holds 8"),
        (leaked, (), 6, "leakage: the bank"),
        (bright, (), 3, f"{bright}: channel 0: its samples have the median"),
    ):
        refuse(*kit.export(found, *more), code=code, says=[says])
        assert not kit.target.exists()


@pytest.mark.parametrize("kit", ["segmenter"], indirect=True)
def test_a_host_without_data_sets_of_its_own_exports_none(kit, bank, refuse):
    says = ["--export new: segmenter has no data sets to write"]
    words = ("augment", "--target", kit.host, *kit.where, "--bank", bank, "--ratio", "1:1")
    refuse(*words, "--export", "new", code=2, says=says)
