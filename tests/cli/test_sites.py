"""``check --sites`` and ``--against`` on pictures with a known change."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, grey_dilation

import gansynth
from gansynth.sampling.run_source import open_source

PEOPLE, SLICES, SIDE = 8, 2, 64
SUBJECTS, SITES = r"^([ab]\d+)_", "^([ab])"
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def scan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W) with values in 0..1 and labels: a body with texture, and a bright lesion."""
    row, column = np.indices((SIDE, SIDE))
    body = np.hypot(row - 32, (column - 32) / rng.uniform(0.85, 1)) < rng.uniform(22, 25)
    lesion = np.hypot(row - rng.uniform(26, 34), column - rng.uniform(26, 34)) < rng.uniform(4, 6)
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 2)
    image = 0.4 + 0.5 * texture + rng.normal(0, 0.02, (SIDE, SIDE)) + 0.25 * lesion
    return np.where(body, image, 0).clip(0, 1), lesion.astype(np.uint8)


def gamma(image: Any, labels: Any, rng: Any) -> Any:
    return image**0.6, labels


def noise(image: Any, labels: Any, rng: Any) -> Any:
    return np.where(image > 0, image + rng.normal(0, 0.06, image.shape), 0), labels


def blur(image: Any, labels: Any, rng: Any) -> Any:
    return gaussian_filter(image, 1), labels


def padding(image: Any, labels: Any, rng: Any) -> Any:
    return np.pad(image, 12), np.pad(labels, 12)


def wider_outlines(image: Any, labels: Any, rng: Any) -> Any:
    return image, grey_dilation(labels, (5, 5))


def lower_lesions(image: Any, labels: Any, rng: Any) -> Any:
    return image, np.roll(labels, 12, axis=0)


def dark_lesions(image: Any, labels: Any, rng: Any) -> Any:
    return image - 0.5 * labels.clip(0, 1) * (image > 0), labels


def fewer_lesions(image: Any, labels: Any, rng: Any) -> Any:
    return image, labels * (rng.random() < 0.2)


def other_body(image: Any, labels: Any, rng: Any) -> Any:
    row, column = np.indices(image.shape)
    arms = (abs(row - 20) < 6) | (abs(column - 20) < 6)
    return np.where(arms, np.maximum(image, 0.3) + rng.normal(0, 0.02, image.shape), 0), labels


def nothing(image: Any, labels: Any, rng: Any) -> Any:
    return image, labels


FOUND: dict[Change, str] = {
    gamma: "grey values",
    noise: "noise and detail",
    blur: "noise and detail",
    padding: "field of view",
    wider_outlines: "size",
    lower_lesions: "place",
    dark_lesions: "turned contrast",
    fewer_lesions: "number",
    other_body: "body",
}


def save(folder: Path, site: str, change: Change = nothing, *, people: int = PEOPLE) -> str:
    """Save a site's pictures and masks, and return what opens them."""
    for person in range(people):
        rng = np.random.default_rng([ord(site), person])
        for number in range(SLICES):
            image, labels = change(*scan(rng), rng)
            for part, array in (("images", image), ("labels", labels)):
                (folder / part).mkdir(parents=True, exist_ok=True)
                pixels = Image.fromarray((255 * array).clip(0, 255).astype(np.uint8))
                pixels.save(folder / part / f"{site}{person}_{number}.png")
    return f"pictures:{folder}"


@pytest.fixture(scope="module")
def gap_of(tmp_path_factory) -> Callable[[Change], Any]:
    """The comparison of site ``a`` with a site ``b`` that was changed."""

    @cache
    def compare(change: Change) -> Any:
        folder = tmp_path_factory.mktemp("both")
        save(folder, "a")
        checked = gansynth.check(
            save(folder, "b", change), subjects=SUBJECTS, sites=SITES, quiet=True
        )
        return checked.site_gaps[0]

    return compare


def shown(gap: Any, what: str) -> set[str]:
    """Kinds or parts of the differences that are told."""
    return {one[what] for one in gap["differences"] if one["shown"]}


@pytest.mark.parametrize("change", FOUND)
def test_a_known_difference_is_told_as_what_it_is(gap_of, change):
    assert FOUND[change] in shown(gap_of(change), "kind")


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (gamma, {"anatomy", "numbers"}),
        (noise, {"anatomy", "numbers"}),
        (blur, {"anatomy", "numbers"}),
        (padding, {"anatomy", "numbers"}),
        (fewer_lesions, {"look", "anatomy"}),
    ],
)
def test_what_was_not_changed_is_not_told(gap_of, change, others):
    assert not shown(gap_of(change), "part") & others


def test_between_two_halves_of_a_site_nothing_differs(gap_of):
    gap = gap_of(nothing)
    assert not shown(gap, "name")
    assert "there may be no gap to close" in gap["verdict"]


def test_a_contrast_that_turns_over_is_no_work_for_a_translation(gap_of):
    assert "no unpaired method can know that" in gap_of(dark_lesions)["verdict"]


def test_another_part_of_the_body_is_no_data_for_one_model(gap_of):
    assert "hardly data for one model" in gap_of(other_body)["verdict"]


def test_the_lines_name_each_kind_of_difference_and_its_rule(tmp_path, succeed):
    save(tmp_path / "both", "a")
    data = save(tmp_path / "both", "b", gamma)
    told = succeed("check", data, "--subjects", SUBJECTS, "--sites", SITES).stdout
    assert "a (8 subjects) against b (8): look differs, and nothing else that is measured" in told
    assert "grey values: match histograms, or vary grey values more (grey level " in told


def test_the_data_of_sites_are_opened_once(tmp_path, succeed, monkeypatch):
    opened = []

    def counted(request):
        opened.append(request)
        return open_source(request)

    monkeypatch.setattr("gansynth.hosts.deciding.one_command.open_source", counted)
    save(tmp_path / "both", "a")
    data = save(tmp_path / "both", "b", gamma)
    succeed("check", data, "--subjects", SUBJECTS, "--sites", SITES)
    assert len(opened) == 1


def test_an_expression_names_the_people_of_both_sets_or_the_way_to_name_the_others(
    tmp_path, run_json, run_cli
):
    here, there = save(tmp_path / "here", "a"), save(tmp_path / "there", "b", gamma)
    words = ("check", here, "--against", there)
    [gap] = run_json(*words, "--subjects", SUBJECTS)["site_gaps"]
    assert gap["here"]["subjects"] == gap["there"]["subjects"] == PEOPLE
    only_here = run_cli(*words, "--subjects", r"^(a\d)_")
    assert only_here.exit_code == 3
    assert "--against-read subjects=" in only_here.stderr
    assert (
        run_cli(*words, "--subjects", r"^(a\d)_", "--against-read", "subjects=each").exit_code == 0
    )


def test_another_folder_without_labels_is_a_site(tmp_path, run_json):
    here, there = save(tmp_path / "here", "a"), tmp_path / "there"
    save(there, "b", gamma)
    words = ("--against", f"pictures:{there / 'images'}", "--against-read", f"subjects={SUBJECTS}")
    [gap] = run_json("check", here, "--subjects", SUBJECTS, *words)["site_gaps"]
    assert shown(gap, "kind") == {"grey values"}
    assert "nothing is known of what is labelled" in gap["verdict"]


def test_each_of_three_sites_is_compared_with_the_others(tmp_path, run_json):
    for site in "abc":
        data = save(tmp_path / "all", site)
    words = ("--subjects", r"^([abc]\d+)_", "--sites", "^([abc])")
    gaps = run_json("check", data, *words)["site_gaps"]
    assert [(gap["here"]["name"], gap["there"]["name"]) for gap in gaps] == [
        ("the others", site) for site in "abc"
    ]


def test_sites_stand_in_a_table(tmp_path, run_json):
    data = save(tmp_path / "all", "a")
    rows = [f"a{p}_{n},{'north' if p < 4 else 'south'}" for p in range(PEOPLE) for n in range(2)]
    (tmp_path / "sites.csv").write_text("\n".join(["case,site", *rows]))
    [gap] = run_json("check", data, "--subjects", SUBJECTS, "--sites", tmp_path / "sites.csv")[
        "site_gaps"
    ]
    assert (gap["here"]["name"], gap["there"]["name"]) == ("north", "south")


def two_halves_of_a_person(folder: Path) -> tuple[str, ...]:
    return save(folder, "a"), "--subjects", SUBJECTS, "--sites", r"_([01])$"


def one_site(folder: Path) -> tuple[str, ...]:
    return save(folder, "a"), "--subjects", SUBJECTS, "--sites", SITES


def a_site_of_one_person(folder: Path) -> tuple[str, ...]:
    save(folder, "b", people=1)
    return save(folder, "a"), "--subjects", SUBJECTS, "--sites", SITES


def cases_without_a_site(folder: Path) -> tuple[str, ...]:
    save(folder, "b")
    return save(folder, "a"), "--subjects", SUBJECTS, "--sites", "^(a)"


def other_channels(folder: Path) -> tuple[str, ...]:
    there = folder / "there/images"
    there.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(there / f"{number}.png")
    against = ("--against", f"pictures:{there}", "--against-read", "subjects=each")
    return save(folder / "here", "a"), "--subjects", SUBJECTS, *against


def nothing_there(folder: Path) -> tuple[str, ...]:
    return save(folder, "a"), "--subjects", SUBJECTS, "--against", f"pictures:{folder / 'absent'}"


def both(folder: Path) -> tuple[str, ...]:
    return (*one_site(folder), "--against", "pictures:elsewhere")


REFUSED: dict[Callable[[Path], tuple[str, ...]], str] = {
    two_halves_of_a_person: "folds.subject-of-two-sites",
    one_site: "folds.only-one-site",
    a_site_of_one_person: "sites.too-few-subjects",
    cases_without_a_site: "folds.cases-without-subject",
    other_channels: "sites.other-images",
    nothing_there: "--against pictures:",
    both: "--against",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_what_cannot_be_compared_is_refused_in_a_line(tmp_path, run_cli, typed):
    result = run_cli("check", *typed(tmp_path))
    assert result.exit_code in (2, 3)
    [line] = [text for text in result.stderr.splitlines() if text.startswith(("error", "Error"))]
    assert REFUSED[typed] in line
