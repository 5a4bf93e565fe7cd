"""What is said and chosen of samples, by what they did to sets like the user's."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure import gain_evidence
from gansynth.data.organs import evenly_chosen
from gansynth.hosts.deciding import advice
from gansynth.hosts.deciding.advice import MeasuredSet, advice_for, evidence
from tests.conftest import DATA

PEOPLE, EACH, EDGE = 10, 4, 48


def disc(radius: float, row: int = 24, column: int = 24) -> np.ndarray:
    """A mask (48, 48) of a disc."""
    rows, columns = np.mgrid[:EDGE, :EDGE]
    return np.asarray(np.hypot(rows - row, columns - column) < radius)


def scans(folder: Path, *, rim: bool = False) -> str:
    """Ten people's slices, three in four with a lesion: compact, or a rim around a bleeding."""
    rng = np.random.default_rng(0)
    for number in range(PEOPLE * EACH):
        row, column = rng.integers(16, 32, 2)
        core, whole = disc(4, row, column), disc(6, row, column)
        lesion = (whole & ~core) if rim else whole
        lesion &= number % EACH < EACH - 1
        grey = 90 * disc(22) + rng.normal(0, 20, (EDGE, EDGE)) + (10 if rim else 35) * lesion
        if rim:
            grey[core & lesion.any()] += 80
        name = f"p{number // EACH}_s{number % EACH}.png"
        for kind, array in (("images", grey.clip(0, 255)), ("masks", 255 * lesion)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / kind / name)
    return f"pictures:{folder}"


def of_few(data: Path, folder: Path, subjects: str) -> str:
    """Pictures of 15 people of a data set, a fifth of whom is held out."""
    names = [path.name for path in (data / "images").iterdir()]
    person = {name: re.findall(subjects, name)[0] for name in names}
    chosen = evenly_chosen(sorted(set(person.values())), 15)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for name in person:
            if person[name] in chosen:
                (folder / kind / name).symlink_to((data / kind / name).absolute())
    return f"pictures:{folder}"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_gain_that_false_alarms_may_have_brought_is_told_and_no_reason_to_draw(succeed):
    made = succeed("check", scans(Path("scans")), "--subjects", r"(p\d)_")
    assert "samples helped 0, harmed 0, unclear 3 (" in made.stdout
    assert "Dice +6.1, +3.5 to +8.7, false alarms not made equal" in made.stdout
    planned = succeed("augment", "pictures:scans", "--subjects", r"(p\d)_", "--dry-run", "--json")
    assert "chose ratio 1:0 because of 3 sets like these, samples helped 0" in planned.stderr


def test_compact_lesions_are_drawn_once_sets_like_them_were_helped_at_equal_alarms(
    succeed, monkeypatch
):
    monkeypatch.setattr(advice, "evidence", helped)
    words = (scans(Path("scans")), "--subjects", r"(p\d)_")
    planned = succeed("augment", *words, "--dry-run", "--json")
    assert "chose ratio 1:1 because of 3 sets like these, samples helped 3 (" in planned.stderr


def helped() -> list[MeasuredSet]:
    """The measured sets, as if all results were at equal false alarms."""
    return [
        replace(one, results=tuple([replace(each, equal_alarms=True) for each in one.results]))
        for one in evidence()
    ]


def test_a_rim_around_a_bleeding_is_not_drawn_and_the_command_that_tests_it_is_named(succeed):
    words = (scans(Path("scans"), rim=True), "--subjects", r"(p\d)_")
    planned = succeed("augment", *words, "--dry-run", "--json")
    assert json.loads(planned.stdout)["ratio"] == "1:0"
    assert "the nearest, oedema around a bleeding in CT slices)" in planned.stderr
    assert "gansynth augment pictures:scans --subjects '(p\\d)_' --compare" in planned.stderr


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "subjects", "says"),
    [
        ("phe_ct256", "(P[0-9]+)_", "harmed 1 (oedema around a bleeding in CT slices, 8 to train"),
        (
            "lgg_flair256",
            "(TCGA_[A-Z]+_[A-Z0-9]+)_",
            "unclear 3 (gliomas in FLAIR slices, 5",
        ),
        ("retina", "_([DC][0-9]+)", "nothing like these data was measured ("),
    ],
)
def test_real_sets_are_told_what_was_measured_on_sets_like_them(succeed, name, subjects, says):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there")
    data = of_few(DATA / name, Path("few"), subjects)
    assert says in succeed("benchmark", "--new", data, "--subjects", subjects).stdout


def test_more_people_than_samples_have_helped_are_trained_on_alone():
    known = {one.name: one for one in evidence()}
    gliomas = known["gliomas in FLAIR slices"].description
    more = replace(gliomas, subjects=13)
    found = [advice_for(each, helped()) for each in (gliomas, more)]
    assert [each.ratio for each in found] == ["1:1", "1:0"]
    assert str(found[1]).endswith("none helped with more than 12 subjects, these have 13")


def test_the_table_has_the_results_as_they_are_committed_and_advice_from_others_is_no_harm():
    for known, one in zip(gain_evidence.SETS, evidence(), strict=True):
        assert (one.name, one.results) == (known.name, gain_evidence.results_of(known))
    kept = json.loads(gain_evidence.RESULTS.read_text())
    found = [gain_evidence.leave_one_out(evidence(), reach) for reach in gain_evidence.REACHES]
    assert (found, gain_evidence.sensitivity(evidence())) == (kept["by_reach"], kept["by_limit"])
    usual = found[gain_evidence.REACHES.index(1.0)]
    assert usual["right"] >= 6
    assert usual["harm_recommended"] == 0
    assert not any(row["harm_recommended"] for row in kept["by_limit"])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": 0}, "results.json: format 0, expected results of format 1"),
        ({"format": 1, "comparisons": [], "arms": {"default": {}}}, "has no arm 'own', expected"),
    ],
)
def test_results_that_cannot_be_read_are_refused_in_a_line(document, says):
    Path("results.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit, match=says):
        gain_evidence.study_results(Path("results.json"), "own")


def test_a_set_that_nobody_has_described_is_refused_in_a_line():
    with pytest.raises(SystemExit, match="has no description of gliomas in FLAIR slices"):
        gain_evidence.described(gain_evidence.SETS[0], None, {})
