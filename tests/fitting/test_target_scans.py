"""``fit --target-scans``: scans of another site, whose look samples take on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gansynth
from tests.cli.test_sites import SUBJECTS, gamma, save

ELASTIC = ("fit", "elastic", "--set", "maps=scans", "--set", "least_voxels=0.1")


def scans_of(folder: Path) -> str:
    """Pictures of site ``b`` without masks, and ``b``'s greys are another's."""
    save(folder / "theirs", "b", gamma)
    return f"pictures:{folder / 'theirs/images'}"


def test_samples_have_the_grey_values_of_the_scans(tmp_path):
    data, scans = save(tmp_path / "ours", "a"), scans_of(tmp_path)
    words: Any = {"data": data, "subjects": SUBJECTS, "target_scans": scans}
    run = gansynth.fit("elastic", maps="scans", **words, out=tmp_path / "run", quiet=True)

    def body(images: Iterable[Any]) -> float:
        return float(np.mean([np.median(image[image > 0.1]) for image in images]))

    def of(folder: str) -> float:
        files = sorted((tmp_path / folder).glob("*.png"))
        return body([np.asarray(Image.open(path)) / 255 for path in files])

    ours, theirs = of("ours/images"), of("theirs/images")
    drawn = body([sample.image for sample in run.sample(12)])
    assert abs(drawn - theirs) < 0.15 * abs(ours - theirs)


def test_people_of_the_scans_count_as_seen(tmp_path, run_json, run_cli):
    data, run = save(tmp_path / "ours", "a"), tmp_path / "run"
    scans = scans_of(tmp_path)
    run_json(*ELASTIC, "--data", data, "--target-scans", scans, "-o", run)
    theirs = save(tmp_path / "theirs", "b", gamma)
    words = ("augment", theirs, "--subjects", SUBJECTS, "--generator", run, "--ratio", "1:1")
    refused = run_cli(*words, "--target", "segmenter", "-o", tmp_path / "mixed")
    assert refused.exit_code == 6
    assert "held-out" in refused.stderr


def test_scans_of_held_out_people_are_refused(tmp_path, run_cli):
    data = save(tmp_path / "ours", "a")
    words = ("--data", data, "--subjects", SUBJECTS, "--target-scans", f"{data}/images")
    refused = run_cli(*ELASTIC, *words, "-o", tmp_path / "run")
    assert refused.exit_code == 6
    assert "--target-scans" in refused.stderr


def test_a_fit_with_the_same_scans_is_finished_and_with_others_another_run(
    tmp_path, run_json, run_cli
):
    data, scans = save(tmp_path / "ours", "a"), scans_of(tmp_path)
    words = (*ELASTIC, "--data", data, "-o", tmp_path / "run", "--target-scans", scans)
    first = run_json(*words)
    assert run_json(*words)["run_id"] == first["run_id"]
    refused = run_cli(*words, "--target-scans-read", "subjects=each")
    assert "holds another run (target_scans" in refused.stderr


@pytest.mark.parametrize(
    ("generator", "words", "fault"),
    [
        ("elastic", ["--set", "maps=scans"], "fitting.target-scans-missing"),
        ("elastic", ["--target-scans", "SCANS"], "fitting.target-scans-without-effect"),
        ("copypaste", ["--target-scans", "SCANS"], "fitting.target-scans-without-effect"),
        (
            "elastic",
            ["--target-scans", "COLOUR", "--set", "maps=scans"],
            "fitting.target-scans-differ",
        ),
        ("elastic", ["--target-scans", "absent", "--set", "maps=scans"], "source.path-missing"),
        ("elastic", ["--target-scans-read", "fold=0"], "has no effect"),
    ],
)
def test_scans_that_do_not_fit_are_refused(tmp_path, run_cli, generator, words, fault):
    data, scans, colour = save(tmp_path / "ours", "a"), scans_of(tmp_path), tmp_path / "colour"
    colour.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(colour / f"{number}.png")
    named = {"SCANS": scans, "COLOUR": f"pictures:{colour}"}
    typed = [named.get(word, word) for word in words]
    refused = run_cli("fit", generator, "--data", data, *typed, "-o", tmp_path / "run", "--debug")
    assert refused.exit_code == 2
    assert fault in refused.stderr
    assert not (tmp_path / "run").exists()
