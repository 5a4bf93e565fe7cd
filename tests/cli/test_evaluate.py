import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth_evaluate import memorisation
from tests.offered import metric_of, offered

pytestmark = pytest.mark.usefixtures("unrendered")
QUICK = ("--preset", "quick", "-n", 16, "--device", "cpu")
CHEAP = (*QUICK, "--metric", "spectrum", "--metric", "diversity", "--only", "realism")


@pytest.fixture
def run(toys, world, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world / "small", tmp_path / "run"))


def test_evaluate_makes_only_the_parts_asked_for_and_tells_what_it_found(
    run, succeed, run_json, tmp_path
):
    only = ("--only", "maps", "--no-pictures", "-n", 8, "-o", tmp_path / "own")
    found = run_json("evaluate", run, *QUICK, *only)
    assert [one["key"] for one in found["maps"]] == ["images", "features"]
    assert not {"figures", "memorisation", "faithfulness"} & set(found)
    assert "data:image/png" not in (tmp_path / "own" / "report.html").read_text("utf-8")
    assert not (run / "evaluation").exists()
    result = succeed("evaluate", run, *CHEAP)
    for words in ("Realism: ", "Labels: ", "Memorisation: ", "of 3 figures", "report.html"):
        assert words in result.stdout
    folder = run / "evaluation"
    assert {p.name for p in folder.iterdir()} == {"evaluation.json", "report.html", "report.md"}
    written = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert not {"maps", "memorisation", "faithfulness"} & set(written)
    assert "data:image/png" in (folder / "report.html").read_text("utf-8")


def test_measures_of_an_earlier_evaluation_stay_unless_they_are_of_other_samples(run, run_json):
    def report() -> tuple[dict[str, Any], str]:
        written = json.loads((run / "evaluation" / "evaluation.json").read_text("utf-8"))
        return written, (run / "card.md").read_text("utf-8")

    run_json("evaluate", run, *CHEAP)
    first, card = report()
    found = run_json("evaluate", run, *QUICK, "-n", 8, "--only", "memorisation")
    both, card_of_both = report()
    assert "figures" not in found
    assert both["figures"] == first["figures"]
    assert both["kept"] == dict.fromkeys(("spectrum", "diversity"), "16 samples, seed 0")
    measured = [line for line in card.splitlines() if "figures" in line]
    assert measured
    assert all(line in card_of_both for line in measured)
    assert "near-copy" in card_of_both
    run_json("evaluate", run, *CHEAP, "-n", 8)
    newest, _ = report()
    assert newest["figures"] != first["figures"]
    assert list(newest["kept"]) == ["memorisation"]
    run_json("evaluate", run, *CHEAP, "--edit", "rotate")
    assert report()[0]["kept"] == {}


def test_the_seed_and_what_is_asked_of_samples_decide_what_is_found(run, run_json):
    more = ((), (), ("--seed", 5), ("--edit", "rotate"))
    spectrum = (*CHEAP[:-4], "--only", "realism", "--no-pictures", "-n", 8)
    plain, again, other, edited = (
        run_json("evaluate", run, *spectrum, *m)["figures"] for m in more
    )
    assert plain == again
    assert other != plain
    assert edited != plain


def test_an_export_is_searched_for_names(run, run_json, tmp_path):
    clean, leaky = tmp_path / "clean", tmp_path / "leaky"
    run_json("sample", run, "-n", 2, "--deidentify", "-o", clean)
    leaky.mkdir()
    (leaky / "toy_03.txt").write_text("nothing", encoding="utf-8")
    found = run_json("evaluate", run, *CHEAP, "--exported", leaky)
    assert found["identity"]["findings"]
    assert [alarm["key"] for alarm in found["alarms"] if alarm["key"] == "identity"]
    found = run_json("evaluate", run, *CHEAP, "--exported", clean)
    assert found["identity"]["findings"] == []
    assert "Nothing that names a patient" in found["words"]["not_shown"][-1]


def test_a_bank_is_evaluated_as_its_run_is(run, run_json, refuse, tmp_path):
    opened = load_run(run, "cpu")
    source = open_source(opened.request)
    drawer, bank = Sampler(opened, source), tmp_path / "bank"
    made = (source.schema, drawer.lineage, opened.run_id, opened.manifest_sha256)
    with BankWriter.create(bank, BankSpec(*made, True, 16, dtype="float32")) as writer:
        for sample in drawer.draw(0, 16):
            writer.publish(sample, {})
        writer.finish()
    found = run_json("evaluate", bank, "--real", "toy:2", *CHEAP)
    own = run_json("evaluate", run, *CHEAP)
    assert found["of"] == {"kind": "bank", "name": "bank", "generator": "means"}
    assert own["of"] == {"kind": "run", "name": "run", "generator": "means"}
    assert found["data"] == own["data"]
    assert (tmp_path / "bank-evaluation" / "report.html").exists()
    values = [[figure["value"] for figure in one["figures"]] for one in (found, own)]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    # Whom it remembers is known by its lineage.
    found = run_json("evaluate", bank, "--real", "toy:2", *QUICK, "--only", "memorisation")
    assert [attack["attack"] for attack in found["memorisation"]["membership"]] == ["distance"]
    refuse("evaluate", bank, *QUICK, code=2, says=["--real", "toy:2 fold 0"])


def test_a_strangers_metric_is_in_the_report_unless_it_fails_or_wants_more_samples(run, run_json):
    def broken(samples, real, schema):
        raise RuntimeError("no idea")

    def brightness(samples, real, schema):
        return {"brighter": float(samples[0].image.mean() - real[0].image.mean())}

    functions = {"broken": broken, "brightness": brightness}
    metrics = {name: metric_of(name, function) for name, function in functions.items()}
    with offered("metrics", metrics=metrics):
        found = run_json("evaluate", run, "-n", 8, "--preset", "quick", "--only", "realism")
    (figure,) = [one for one in found["figures"] if one["metric"] == "brightness"]
    assert figure["name"] == "brighter"
    assert figure["real_low"] < figure["real_high"]
    why = {one["metric"]: one["why"] for one in found["left_out"]}
    assert "no idea" in why["broken"]
    assert set(why) >= {"c2st-cnn", "manifold"}
    assert {figure["metric"] for figure in found["figures"]} >= {"spectrum", "kid"}


def test_a_stopped_evaluation_keeps_its_parts_and_the_command_it_names_makes_the_others(
    run, run_cli, monkeypatch
):
    parts = ("--only", "realism", "--only", "memorisation")
    with monkeypatch.context() as stopped:
        stopped.setattr(memorisation, "measure_memory", _stop)
        result = run_cli("evaluate", run, *CHEAP[:-2], *parts)
    folder = run / "evaluation"
    kept = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert kept["figures"]
    assert "memorisation" not in kept
    rest = re.search(r"about \d+:\d\d more: memorisation\nnext: gansynth (.*)\n$", result.stderr)
    assert rest is not None, result.stderr
    assert run_cli(*shlex.split(rest[1])).exit_code == 0
    whole = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert whole["figures"] == kept["figures"]
    assert "memorisation" in whole


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt
