"""Every way by which images come into a training, with a held-out person in many guises.

What each does is a table of docs/leakage.md, which is read here.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

import gansynth
from gansynth.hosts.deciding import dry_run
from gansynth.runtime.errors import IntegrityFault
from gansynth_cli.main import cli
from tests.producers import forked_producers

PAGE = Path(__file__).parents[1] / "docs/leakage.md"
SIDE, RULE = 96, "([A-Z][0-9]+)_"
PEOPLE = [f"P{number}" for number in range(8)]
HELD_OUT = PEOPLE[5:]
STRANGERS = [f"Q{number}" for number in range(4)]
Array = np.ndarray


def slice_of(person: str, look: str = "a") -> Array:
    """A head (H, W) in empty space, 0 to 255: tissue of one person, in one slice or sequence."""
    rng = np.random.default_rng([ord(letter) for letter in person + look])
    grid = np.hypot(*np.meshgrid(np.linspace(-1.1, 1.1, SIDE), np.linspace(-1.2, 1.2, SIDE)))
    noise = rng.normal(0, 1, (3, SIDE, SIDE))
    tissue = np.sum([gaussian_filter(noise[k], s) * s for k, s in enumerate((1.5, 3, 6))], axis=0)
    head = np.where(grid < 0.8, 0.4 + 0.08 * tissue / tissue.std(), 0.9 * (grid < 0.9))
    return np.asarray(np.rint(np.clip(head, 0, 1) * 255), np.uint8)


def write(folder: Path, name: str, image: Array) -> None:
    """Write a picture and its mask, as ``pictures:`` reads them."""
    mask = np.zeros(image.shape, np.uint8)
    mask[40:52, 44:58] = 1
    for part, array in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / name)


def inner(image: Array) -> Array:
    cut = image[8:-8, 8:-8].astype(np.float32)
    return np.clip(np.rint(zoom(cut, SIDE / len(cut), order=1)), 0, 255).astype(np.uint8)


OWN = slice_of("P5")
GUISES: dict[str, tuple[str, Array, str]] = {
    "another slice": ("P5_b.png", slice_of("P5", "b"), RULE),
    "the slice renamed": ("X1_a.png", OWN, RULE),
    "another format": ("X1_a.png", np.rint(OWN * 0.7 + 20).astype(np.uint8), RULE),
    "another sequence": ("P5_t2.png", 255 - slice_of("P5", "t2"), RULE),
    "a crop": ("X1_a.png", inner(OWN), RULE),
    "another site's same number": ("P5_c.png", slice_of("site 2"), f"site2:{RULE}"),
    "a training patient": ("P0_b.png", slice_of("P0", "b"), RULE),
    "a stranger": ("X1_a.png", slice_of("X1"), RULE),
}
"""Name of its file, what it shows, and how people are named where it lies."""


def typed(*words: object) -> Result:
    result: Result = CliRunner().invoke(cli, [str(word) for word in words])
    return result


def done(*words: object) -> None:
    result = typed(*words)
    assert result.exit_code == 0, result.stderr


def said(result: Result) -> str:
    """What a command says of a held-out person."""
    if result.exit_code == 6:
        assert "lineage.held-out-case-seen" in result.stderr, result.stderr
        return "refused"
    assert result.exit_code == 0, result.stderr
    return "warned" if "ids that begin as" in result.stderr else "passes"


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    """Dry runs do not compare samples with training cases, which no door waits for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})
        yield


CGAN = ("width=4", "levels=2", "d_width=4", "d_levels=1", "steps=1")
OF_CGAN = [word for text in CGAN for word in ("--set", text)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Pictures of eight people, three held out, and runs of the training ones."""
    home = tmp_path_factory.mktemp("world")
    for person in PEOPLE:
        write(home / "host", f"{person}_a.png", slice_of(person))
    sides = [f"{p}_a" for p in PEOPLE if p not in HELD_OUT], [f"{p}_a" for p in HELD_OUT]
    (home / "host" / "splits.json").write_text(json.dumps([{"train": sides[0], "val": sides[1]}]))
    done("fit", "parametric", *host(home), "-q", "-o", home / "parametric")
    done("fit", "cgan3d", *host(home), *OF_CGAN, "-q", "-o", home / "cgan")
    return Path(home)


def host(world: Path) -> tuple[object, ...]:
    folder = world / "host"
    splits = f"splits={folder / 'splits.json'}"
    return "--data", f"pictures:{folder}", "-f", 0, "--subjects", RULE, "--read", splits


@pytest.fixture(scope="module", params=GUISES)
def visitor(request, world, tmp_path_factory) -> tuple[str, Path, str]:
    """A guise, a folder with it and some strangers, and how people are named there."""
    name, image, rule = GUISES[request.param]
    folder = tmp_path_factory.mktemp("visitor") / "host"
    for stranger in STRANGERS:
        write(folder, f"{stranger}_a.png", slice_of(stranger))
    write(folder, name, image)
    return request.param, folder, rule


@pytest.fixture(scope="module")
def of_visitors(visitor) -> Path:
    """A run that has seen the visitor, and the training cases of the fold."""
    guise, folder, rule = visitor
    run: Path = folder.parent / "run"
    both = folder.parent / "both"
    for person in PEOPLE:
        if person not in HELD_OUT:
            write(both, f"{person}_a.png", slice_of(person))
    name, image, _ = GUISES[guise]
    write(both, name, image)
    own = ("--data", f"pictures:{both}", "--fold", "all", "--subjects", rule)
    done("fit", "cgan3d", *own, *OF_CGAN, "-q", "-o", run)
    return run


@pytest.fixture(scope="module")
def bank_of_visitors(of_visitors) -> Path:
    bank: Path = of_visitors.with_name("bank")
    with forked_producers():
        gansynth.fill_bank(of_visitors, bank, samples=2)
    return bank


def augment(world: Path, run: Path, *words: object) -> Result:
    tiny = ("--set", "steps=1", "--set", "width=4", "--dry-run", "-o", world / "trained")
    return typed("augment", "--target=segmenter", "--ratio=1:1", *host(world), *tiny, *words)


def by_option(option: str, run: str, *, sampled: bool) -> Callable[..., str]:
    def outcome(world: Path, folder: Path, rule: str, request: pytest.FixtureRequest) -> str:
        # Pictures of strangers have no lesion, so their masks stay away.
        asked = f"pictures:{folder if option == '--label-source' else folder / 'images'}"
        words = (option, asked, f"{option}-read", f"subjects={rule}")
        if sampled:
            out = folder.parent / f"samples{option}"
            return said(typed("sample", world / run, "-n", 1, "-o", out, *words))
        vow = ["--lesion-free"] * (option == "--unlabelled")
        return said(augment(world, world / run, "--generator", world / run, *words, *vow))

    return outcome


def by_run(*words: str) -> Callable[..., str]:
    def outcome(world: Path, folder: Path, rule: str, request: pytest.FixtureRequest) -> str:
        if words == ("--init-from",):
            run, out = request.getfixturevalue("of_visitors"), folder.parent / "continued"
            begin = ("--init-from", run, *OF_CGAN, "--dry-run", "-o", out)
            return said(typed("fit", "cgan3d", *host(world), *begin))
        (option,) = words
        fixture = "bank_of_visitors" if option == "--bank" else "of_visitors"
        run = request.getfixturevalue(fixture)
        return said(augment(world, run, option, run))

    return outcome


def mixed(given: Callable[[Path], Any]) -> Callable[..., str]:
    def outcome(world: Path, folder: Path, rule: str, request: pytest.FixtureRequest) -> str:
        bank = request.getfixturevalue("bank_of_visitors")
        caplog = request.getfixturevalue("caplog")
        try:
            gansynth.mix([0, 1], bank, "1:1", held_out=given(world))
        except IntegrityFault as fault:
            return "refused" if fault.id == "lineage.held-out-case-seen" else str(fault)
        return "warned" if "ids that begin as" in caplog.text else "passes"

    return outcome


def folder_of_held_out(world: Path) -> Path:
    folder = world / "held_out"
    for person in HELD_OUT:
        write(folder, f"{person}_a.png", slice_of(person))
    return folder / "images"


DOORS: dict[str, Callable[..., str]] = {
    "`augment --unlabelled`": by_option("--unlabelled", "parametric", sampled=False),
    "`sample --unlabelled`": by_option("--unlabelled", "parametric", sampled=True),
    "`augment --label-source`": by_option("--label-source", "cgan", sampled=False),
    "`sample --label-source`": by_option("--label-source", "cgan", sampled=True),
    "`fit --init-from`": by_run("--init-from"),
    "`augment --generator`": by_run("--generator"),
    "`augment --bank`": by_run("--bank"),
    "`mix(held_out=Path(FOLDER))`": mixed(folder_of_held_out),
    "`mix(held_out=IDS)`": mixed(lambda world: [f"{person}_a.png" for person in HELD_OUT]),
}


def told() -> dict[str, dict[str, str]]:
    """Door -> guise -> outcome, by the table of the page."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| by |") or line.startswith(tuple(f"| {door} |" for door in DOORS))
    ]
    head, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def test_the_page_has_every_door_and_every_guise():
    assert {door: set(row) for door, row in told().items()} == {door: set(GUISES) for door in DOORS}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_does_what_the_page_says(door, world, visitor, request):
    guise, folder, rule = visitor
    assert DOORS[door](world, folder, rule, request) == told()[door][guise]


@pytest.fixture(scope="module", params=["1:1", "1:0"])
def trained(world, request) -> Path:
    """A training of one step, with samples of the training cases and without."""
    run, out = world / "parametric", world / f"segmenter_{request.param.replace(':', '-')}"
    generator = ("--generator", run) if request.param == "1:1" else ()
    options = ("--ratio", request.param, "--steps", 1, "--width", 4, "-q", "-o", out)
    with forked_producers():
        done("augment", "--target=segmenter", *host(world), *generator, *options)
    return Path(out)


@pytest.mark.parametrize(
    ("name", "image", "says"),
    [
        ("X1_a.png", slice_of("P0"), "1 of 2 image(s) were seen in training"),
        ("P0_b.png", slice_of("P0", "b"), "1 of 2 image(s) were seen in training"),
        ("P6_a.png", slice_of("P6"), ""),
        ("P6_b.png", slice_of("P6", "b"), ""),
    ],
    ids=["a training image", "a training patient", "a held-out image", "a held-out patient"],
)
def test_a_prediction_says_what_its_training_has_seen(name, image, says, trained, tmp_path):
    for case, shown in ((name, image), ("X2_a.png", slice_of("X2"))):
        Image.fromarray(shown).save(tmp_path / case)
    result = typed("predict", trained, tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert ("seen in training" in result.stderr) == bool(says)
    assert says in result.stderr


def test_test_images_of_the_data_set_itself_are_warned_of(world):
    folder = world / "host" / "imagesTs"
    folder.mkdir()
    for stranger in STRANGERS:
        Image.fromarray(slice_of(stranger)).save(folder / f"{stranger}_a.png")
    result = augment(
        world, world / "parametric", "--generator", world / "parametric",
        "--unlabelled", f"pictures:{folder}", "--lesion-free",
    )  # fmt: skip
    shutil.rmtree(folder)
    assert result.exit_code == 0
    assert "these are test images of pictures:host itself" in result.stderr
