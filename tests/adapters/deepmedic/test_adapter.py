"""DeepMedicAdapter: what it promises the core, what it refuses; nothing is trained here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.adapter import Injection
from gansynth.core.injection import MixPlan
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.hosts.record import usual_output
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.sampling.opening import open_source
from gansynth.testing import check_adapter
from gansynth_deepmedic import guards
from gansynth_deepmedic.adapter import OURS, DeepMedicAdapter
from gansynth_deepmedic.config import RUNS, Choices
from gansynth_deepmedic.engine.volumes import Affine
from gansynth_deepmedic.guards import SMALLEST, sample_bytes
from gansynth_deepmedic.source import open_deepmedic
from tests.deepmedic_sets import Toy, toy_deepmedic

TORCH = {"engine": "torch"}


def adapter_of(toy: Toy, **asked: Any) -> DeepMedicAdapter:
    return DeepMedicAdapter(open_deepmedic(SourceRequest("deepmedic", str(toy.train), **asked)))


@pytest.fixture
def augment(refuse, shared_deepmedic, crop_run, tmp_path):
    """A dry run that must be refused: ``augment("--set", "epochs=0", code=2, says=["epochs"])``.

    It is of the torch engine unless something says what trains.
    """

    def run(*more, code, says, data=shared_deepmedic, named=("--generator",), run=crop_run,
            engine=("--engine", "torch", "--set"), ratio="1:1"):  # fmt: skip
        model = (f"model={data.model}",) if engine else ()
        refuse(
            *("augment", "--target", "deepmedic", "--data", f"deepmedic:{data.train}"),
            *((*named, run) if run is not None else ()),
            *(*engine, *model),
            *(() if "--bank" in named else ("--device", "cpu")),  # that draws
            *("--ratio", ratio, "--dry-run", "-o", tmp_path / "o", *more),
            code=code,
            says=says,
        )
        assert not (tmp_path / "o").exists()

    return run


# -- what the core asks of every adapter -------------------------------------------------------


def test_it_keeps_the_contract_of_adapters(shared_deepmedic, tmp_path):
    adapter = adapter_of(shared_deepmedic)
    cases = [adapter.host.host_case(case) for case in adapter.source.train_ids]

    def draw(drawn, index):
        loaded = drawn[index % len(drawn)]
        return [loaded.image, loaded.labels]

    report = check_adapter(adapter, workspace=tmp_path, dataset=lambda: cases, draw=draw)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}


def test_a_sample_without_labels_is_not_let_in(shared_deepmedic):
    adapter = adapter_of(shared_deepmedic)
    image = np.zeros((2, *SMALLEST), np.float32)
    assert adapter.finalise(Sample(image, np.zeros(SMALLEST, np.int16))) == {}
    with pytest.raises(DataFault, match="no labels"):
        adapter.finalise(Sample(image))


def test_cases_are_drawn_subepoch_by_subepoch(shared_deepmedic, crop_bank):
    adapter = adapter_of(shared_deepmedic)
    cases = [adapter.host.host_case(case) for case in adapter.source.train_ids]
    drawn = adapter.inject(cases, MixPlan(crop_bank(), Ratio(2, 1)), batch_size=2)
    assert len(drawn) == 6
    rounds = [[drawn[place] for place in range(6)] for _ in range(3)]
    for one in rounds:
        assert sum(bool(loaded.sample) for loaded in one) == 2
        assert len({loaded.case for loaded in one if not loaded.sample}) == 4
    tables = [[bool(loaded.sample) for loaded in one] for one in rounds]
    assert any(table != tables[0] for table in tables)
    with pytest.raises(IndexError):
        drawn[6]


def test_room_for_a_sample_is_reckoned_by_crop_or_by_the_largest_case(shared_deepmedic, crop_run):
    source = adapter_of(shared_deepmedic).host
    manifest = json.loads((crop_run / "manifest.json").read_text())
    assert sample_bytes(manifest, source) == 16**3 * (2 * 2 + 2) + 4096
    whole = {**manifest, "space": {**manifest["space"], "grid": "native", "size": []}}
    largest = max(np.prod(source.shape(case)) for case in source.train_ids)
    assert sample_bytes(whole, source) == largest * (2 * 2 + 2) + 4096


def test_raw_values_are_kept_in_full_where_deepmedic_normalises_them(tmp_path, crop_run):
    scores = {"apply_to_all_channels": True, "apply_per_channel": None}
    toy = toy_deepmedic(tmp_path / "raw", train=1, val=0, values={"norm_zscore_prms": scores})
    manifest = json.loads((crop_run / "manifest.json").read_text())
    assert sample_bytes(manifest, adapter_of(toy).host) == 16**3 * (4 * 2 + 2) + 4096


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "epochs=0"], ["--set epochs=0", "greater than or equal to 1"]),
        (["--set", "processes=-2"], ["--set processes=-2", "greater than or equal to -1"]),
        (["--set", "resume=maybe"], ["--set resume=maybe", "yes or no"]),
        (["--set", "resume=yes"], ["gansynth_session.json", "resume=yes"]),
        (["--set", "epoch=3"], ["--set epoch", "Did you mean 'epochs'?"]),
        (["--set", "device=tpu"], ["--set device=tpu", "cuda"]),
        (["--set", "engine=deepmedic"], ["--engine torch and --set engine=deepmedic"]),
        (["--deepmedic", "."], ["--deepmedic .: has no effect without engine=deepmedic"]),
        (
            ["--deepmedic-python", "p"],
            ["--deepmedic-python p: has no effect without engine=deepmedic"],
        ),
        (["--", "-dev", "cpu"], ["-- -dev", "--engine torch has no command line"]),
        (["--fold", "all"], ["--fold all", "expected fold 0"]),
        (["--boxes", "training"], ["--boxes training", "labels"]),
        (["--edit", "nowhere"], ["edit 'nowhere' is unknown"]),
        (["--content", "mixed"], ["--content mixed", "-o DIR"]),
    ],
    ids=lambda value: "-".join(value).strip("-").replace("=", "-") if len(value) else "",
)
def test_what_cannot_be_is_refused(augment, more, says):
    augment(*more, code=2, says=says)


def test_without_anything_that_trains_or_is_written_both_ways_are_named(refuse, shared_deepmedic):
    refuse(
        *("augment", "--target", "deepmedic", "--data", f"deepmedic:{shared_deepmedic.train}"),
        *("--ratio", "1:0"),
        code=2,
        says=["-o DIR", "--deepmedic CHECKOUT", "--engine torch"],
    )


def test_options_of_the_program_ask_for_a_checkout(augment, tmp_path, monkeypatch):
    augment("--", "-dev", "cpu", engine=(), code=2, says=["-- -dev", "GANSYNTH_DEEPMEDIC"])
    monkeypatch.setenv("GANSYNTH_DEEPMEDIC", str(tmp_path))
    augment("--", "-dev", "cpu", engine=(), code=2, says=["-model modelConfig.cfg"])


def test_the_program_is_looked_for_before_anything_starts(augment, shared_deepmedic, tmp_path):
    more = ("--deepmedic", tmp_path, "--", "-model", shared_deepmedic.model)
    augment(*more, engine=(), code=2, says=[f"{tmp_path}", "deepMedicRun"])


def test_resampled_cases_are_refused(augment):
    augment("--read", "spacing=2", run=None, ratio="1:0", code=2, says=["spacing", "native"])


def test_maps_of_weights_are_refused(augment, shared_deepmedic, tmp_path):
    maps = [str(shared_deepmedic.folder / "training_roi.cfg")] * 3
    key = "weightedMapsForSamplingEachCategoryTrain"
    toy = toy_deepmedic(tmp_path / "maps", values={key: maps})
    augment(data=toy, run=None, ratio="1:0", code=3, says=["trainConfig.cfg", key])


def test_labels_that_the_network_does_not_know_are_refused(augment, tmp_path):
    toy = toy_deepmedic(tmp_path / "two", model={"numberOfOutputClasses": 2})
    augment(data=toy, run=None, ratio="1:0", code=3, says=["labels.nii.gz", "2"])


def test_other_data_than_deepmedics_own_are_refused(toy_source):
    with pytest.raises(UsageFault, match=r"toy:3: .* expected deepmedic:trainConfig.cfg"):
        DeepMedicAdapter(open_source(SourceRequest("toy", "3")))


def test_an_output_that_holds_something_is_left_alone(refuse, shared_deepmedic, tmp_path):
    (tmp_path / "thesis.txt").touch()
    for more, says in (((), "take another"), (("--set", "resume=yes"), "gansynth_session.json")):
        refuse(
            *("augment", "--target", "deepmedic", "--data", f"deepmedic:{shared_deepmedic.train}"),
            *("--ratio", "1:0", "--engine", "torch", "--set", f"model={shared_deepmedic.model}"),
            *("-o", tmp_path, "--dry-run", *more),
            code=2,
            says=[str(tmp_path), says],
            keep=[tmp_path],
        )


def test_what_a_training_that_never_began_left_is_no_obstacle(shared_deepmedic, tmp_path):
    for name in (*OURS, "list_flair.cfg"):
        (tmp_path / name).touch()
    adapter = adapter_of(shared_deepmedic)
    adapter.check(Injection(None, Ratio(1, 0)), {**TORCH, "output": str(tmp_path)}, ())


# -- which generators can be used --------------------------------------------------------------


def test_a_generator_of_slices_is_refused(augment, crop_run, changed_run):
    space = json.loads((crop_run / "manifest.json").read_text())["space"]
    run = changed_run(space={**space, "grid": "slice", "size": [16, 16]})
    augment(run=run, code=2, says=["draws slices", "gansynth fit cgan3d --data deepmedic:"])


def test_crops_from_noise_are_refused_whole_volumes_are_not(
    augment, changed_run, crop_run, shared_deepmedic
):
    run = changed_run(heeds=[])
    augment(run=run, code=2, says=["crops from noise", "gansynth fit cgan3d", "whole volumes"])
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["space"] = {**manifest["space"], "grid": "resample"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    adapter = adapter_of(shared_deepmedic)
    adapter.check(Injection(RunFolder(run), Ratio(1, 1), device="cpu"), TORCH, ())


def test_crops_that_are_nothing_but_seam_are_refused(augment, crop_run, changed_run):
    space = json.loads((crop_run / "manifest.json").read_text())["space"]
    run = changed_run(space={**space, "size": [16, 16, 4]})
    augment(run=run, code=2, says=["(16, 16, 4) voxels", "larger size"])


def test_the_space_of_real_cases_is_a_generators(augment):
    augment("--real-in-generator-space", run=None, ratio="1:0", code=2, says=["--generator"])


# -- leakage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the case itself", "same content", "same subject"])
def test_a_generator_that_has_seen_a_validation_case_is_refused(
    augment, changed_run, crop_run, shared_deepmedic, how
):
    source = adapter_of(shared_deepmedic).source
    held = source.held_out_ids[0]
    record = vars(source.record(held))
    others = {"the case itself": [], "same content": ["id", "subject"], "same subject": ["id"]}[how]
    record |= dict.fromkeys(others, "another")
    if how != "same content":
        record |= {"sha256": "0" * 64, "image": "0" * 64, "prints": ()}
    lineage = json.loads((crop_run / "manifest.json").read_text())["lineage"]
    run = changed_run(lineage={**lineage, "cases": [*lineage["cases"], record]})
    augment(run=run, code=6, says=["leakage", held, how])


def test_a_generator_of_lists_that_were_cut_otherwise_is_refused(augment, shared_deepmedic):
    """The case that moves from training to validation has been seen."""
    lists = {"Training": "train", "Validation": "val"}
    values: dict[str, Any] = {}
    for part in lists:
        numbers = range(3) if part == "Training" else range(3, 6)
        for name in ("flair", "t1c", "labels", "roi"):
            folder = shared_deepmedic.folder
            text = "".join(f"{folder}/data/pat_{n:02d}/{name}.nii.gz\n" for n in numbers)
            file = folder.parent / f"other_{part}_{name}.cfg"
            file.write_text(text)
            values.setdefault(f"channels{part}", [])
            key = {"labels": f"gtLabels{part}", "roi": f"roiMasks{part}"}.get(name)
            if key is None:
                values[f"channels{part}"].append(str(file))
            else:
                values[key] = str(file)
    names = shared_deepmedic.folder.parent / "other_names.cfg"
    names.write_text("a.nii.gz\nb.nii.gz\nc.nii.gz\n")
    values["namesForPredictionsPerCaseVal"] = str(names)
    other = shared_deepmedic.folder.parent / "toy_deepmedic_other"
    toy = toy_deepmedic(other, train=1, val=1, values=values)
    augment(data=toy, code=6, says=["leakage", "pat_03"])


def test_a_bank_of_a_generator_that_has_seen_a_validation_case_is_refused(
    augment, shared_deepmedic, tmp_path
):
    from gansynth.bank.reader import BankSpec, BankWriter

    source = adapter_of(shared_deepmedic).source
    seen = (*source.train_ids[:1], *source.held_out_ids[:1])
    lineage = Lineage(source.name, "0", source.records(seen), source.host)
    spec = BankSpec(source.schema, lineage, "toy", "0" * 64, frozen=False, capacity=2)
    BankWriter.create(tmp_path / "bank", spec).close()
    bank = tmp_path / "bank"
    says = ["leakage: the bank", source.held_out_ids[0]]
    augment(named=("--bank",), run=bank, code=6, says=says)


def test_a_generator_of_another_data_set_is_refused(augment, tmp_path):
    other = toy_deepmedic(tmp_path / "other", seed=1, values={"sessionName": "other"})
    says = ["deepmedic:other", "not the one the run was fitted on"]
    augment(data=other, code=6, says=says)


def test_samples_of_a_bank_need_a_place_in_a_training_case(shared_deepmedic, crop_bank, tmp_path):
    adapter = adapter_of(shared_deepmedic)
    adapter.check(Injection(None, Ratio(1, 1), bank=crop_bank()), TORCH, ())
    for name, told, says in (
        ("held", {"case": adapter.source.held_out_ids[0]}, "expected one of the training cases"),
        ("noise", {"case": ""}, "is of no case"),
        ("shape", {"shape": [9, 9, 9]}, r"of shape \(9, 9, 9\)"),
    ):
        bank = crop_bank(name, 1, **told)
        with pytest.raises(DataFault, match=says):
            adapter.check(Injection(None, Ratio(1, 1), bank=bank), TORCH, ())


# -- what is planned ---------------------------------------------------------------------------


def test_a_command_looks_at_the_samples_of_a_bank_once(shared_deepmedic, crop_bank, monkeypatch):
    looked = []
    monkeypatch.setattr(guards, "check_bank", lambda reader, source: looked.append(reader.folder))
    adapter = adapter_of(shared_deepmedic)
    injection = Injection(None, Ratio(1, 1), bank=crop_bank())
    for ask in (adapter.check, adapter.planned, adapter.samples_drawn):
        ask(injection, TORCH, ())
    assert looked == [injection.bank]
    adapter.check(injection, {**TORCH, "epochs": "3"}, ())
    assert looked == [injection.bank] * 2


def test_a_dry_run_says_what_a_subepoch_holds(run_cli, shared_deepmedic, crop_run, tmp_path):
    result = run_cli(
        *("augment", "--target", "deepmedic", "--data", f"deepmedic:{shared_deepmedic.train}"),
        *("--generator", crop_run, "--ratio", "1:2", "--dry-run", "--json"),
        *("--engine", "torch", "--set", f"model={shared_deepmedic.model}", "--device", "cpu"),
        *("--set", "cases=7", "-o", tmp_path / "o"),
    )
    assert result.exit_code == 0, result.stderr
    planned = json.loads(result.stdout)
    assert planned["leakage"].startswith("none")
    assert planned["cases_per_subepoch"] == {"real": 2, "synthetic": 4}
    assert planned["segments_per_subepoch"] == {"real": 20, "synthetic": 40}
    assert any("7 in the file, 6 now" in said for said in planned["said"])
    assert planned["engine"] == "torch"
    assert planned["output"] == str(tmp_path / "o")
    assert planned["bank_bytes"] > 64 * 16**3 * 6
    assert not (tmp_path / "o").exists()


def test_a_schedule_says_how_many_are_synthetic_at_most(shared_deepmedic, crop_run):
    adapter = adapter_of(shared_deepmedic)
    injection = Injection(
        RunFolder(crop_run), Ratio(1, 1), schedule=Schedule.parse("anneal:0%-100%"), device="cpu"
    )
    planned = adapter.planned(injection, TORCH, ())
    assert planned["cases_per_subepoch"] == {"all": 6, "synthetic_at_most": 6}


# -- settings ----------------------------------------------------------------------------------


def test_options_of_the_program_are_read_as_it_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"deepmedic": "dm", "epochs": "3"}
    choices = Choices.read(settings, ["-mod", "m.cfg", "-dev=cuda1", "-resetopt", "-load", "c"])
    assert choices.engine == "deepmedic"
    assert choices.checkout == tmp_path / "dm"
    assert choices.model == tmp_path / "m.cfg"
    assert choices.arguments == ("-dev", "cuda1", "-load", str(tmp_path / "c"), "-resetopt")
    assert choices.numbers == {"numberOfEpochs": 3}
    assert choices.gpus == (1,)
    assert Choices.read(settings, ["-model", "m.cfg"]).gpus == ()


@pytest.mark.parametrize(
    ("named", "found"),
    [("python3.12", "python3.12"), ("env/bin/python", "{here}/env/bin/python")],
    ids=["name", "path"],
)
def test_a_python_may_be_named_as_programs_are(named, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"engine": "deepmedic", "python": named}
    choices = Choices.read(settings, ["-model", "m.cfg"])
    assert str(choices.python) == found.format(here=tmp_path)


@pytest.mark.parametrize(
    ("options", "settings", "says"),
    [
        (["-train", "t.cfg"], {}, "-- -train: what is trained is said by --data"),
        (["-tr", "t.cfg"], {}, "-- -tr: what is trained"),
        (["-t", "t.cfg"], {}, "-- -t: what is trained"),
        (["-test", "t.cfg"], {}, "-- -test: gansynth augment trains"),
        (["-model"], {}, "-- -model: expected a value"),
        (["-model", "a", "-model", "b"], {}, "-- -model b: is given twice"),
        (["-model", "a"], {"model": "b"}, "-- -model a and --set model=b"),
        (["-model", "a", "-dev", "gpu"], {}, "-- -dev gpu: expected cpu, cuda"),
        (["-model", "a", "-load", "c"], {"resume": "yes"}, "-- -load with --set resume=yes"),
        (["-model", "a"], {"device": "cpu"}, "--set device=cpu: .* effect without engine=torch"),
        ([], {}, "--set model: DeepMedic has no network of its own"),
        ([], {"engine": "keras"}, "--engine keras: expected 'deepmedic' or 'torch'"),
        (["-model", "a"], {"affine": "2"}, "--set affine=2: .* less than or equal to 1"),
        (["-model", "a"], {"affine": "nan"}, "--set affine=nan: expected a number"),
    ],
    ids=["train", "short", "shortest", "test", "value", "twice", "both", "device", "load", "other",
         "model", "engine", "much", "nan"],
)  # fmt: skip
def test_options_that_are_not_the_users_to_give_are_refused(options, settings, says):
    with pytest.raises(UsageFault, match=says):
        Choices.read({"engine": "deepmedic", **settings}, options)


def test_cases_are_turned_as_asked_whatever_the_file_says(shared_deepmedic):
    config = adapter_of(shared_deepmedic).host.config
    choices = Choices.read({**TORCH, "affine": "0.5"}, ())
    asked = choices.asked(config).values
    assert Affine.from_values(None, asked, 2) == Affine(prob=0.5)
    written = choices.values(config, Path("out"), augmented=True)
    assert written["augm_img_prms_tr"] == {"affine": {"prob": 0.5}}
    with pytest.raises(UsageFault, match=r"--set affine=0\.5: has no effect with --no-usual"):
        choices.values(config, Path("out"), augmented=False)
    as_it_is = Choices.read(TORCH, ()).values(config, Path("out"), augmented=True)
    assert "augm_img_prms_tr" not in as_it_is


def test_results_go_where_their_name_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    injection = Injection(RunFolder(tmp_path), Ratio.parse("1:2"))
    wanted = Path("runs") / "deepmedic" / "brain-scans_1-2"
    assert usual_output(RUNS, "deepmedic:brain scans", injection) == tmp_path / wanted
