"""What the numbers of masks and label maps mean; each way out that check prints is typed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label

from tests.data import sets
from tests.expected import raises_fault

SHAPE, CASES = (72, 96), 6


def lesion(seed: int) -> Any:
    y, x = np.indices(SHAPE)
    cy, cx = np.random.default_rng(seed).integers(24, 46, 2)
    return ((y - cy) / 9) ** 2 + ((x - cx) / 13) ** 2 < 1


def image(seed: int, shown: Any) -> Any:
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.standard_normal(shown.shape), 1) * 20
    return np.clip(90 + noise + 80 * shown, 0, 255).astype(np.uint8)


def core(drawn: Any) -> Any:
    return np.where(binary_erosion(drawn, iterations=4), 2, drawn.astype(np.uint8))


def ring(drawn: Any, width: int = 1) -> Any:
    return binary_dilation(drawn, iterations=width) & ~drawn


def void(drawn: Any, width: int) -> Any:
    return np.where(ring(drawn, width), 255, core(drawn)).astype(np.uint8)


def bonnet(drawn: Any) -> Any:
    numbers = core(drawn)
    numbers[-9:] = 255
    return numbers.astype(np.uint8)


def objects(seed: int, most: int) -> Any:
    """Discs that are numbered from 1, more in one picture than in another."""
    rng, y, x = np.random.default_rng(seed), *np.indices(SHAPE)
    found = np.zeros(SHAPE, bool)
    for _ in range(most - seed):
        cy, cx = rng.integers(4, 68), rng.integers(4, 92)
        found |= (y - cy) ** 2 + (x - cx) ** 2 < 9
    return label(found)[0].astype(np.uint8)


def soft(drawn: Any) -> Any:
    half = Image.fromarray(255 * drawn.astype(np.uint8)).resize((48, 36))
    return np.asarray(half.resize((96, 72), Image.Resampling.BICUBIC))


def cup(drawn: Any) -> Any:
    return np.select([core(drawn) == 2, drawn], [0, 128], 255).astype(np.uint8)


def nested(drawn: Any) -> Any:
    deep = binary_erosion(drawn, iterations=6)
    return np.where(deep, 255, np.array([0, 85, 170])[core(drawn)]).astype(np.uint8)


MASKS: dict[str, tuple[Any, str, Any]] = {
    "void ring": (lambda n: void(lesion(n), 1), "ignore:255", lambda m: np.where(m == 255, 3, m)),
    "wide ring": (lambda n: void(lesion(n), 2), "ignore:255", lambda m: np.where(m == 255, 3, m)),
    "void along an edge": (lambda n: bonnet(lesion(n)), "ignore:255", lambda m: np.minimum(m, 3)),
    "ring of one label": (lambda n: np.where(ring(lesion(n)), 255, lesion(n)).astype(np.uint8),
                          "ignore:255", lambda m: np.minimum(m, 2)),
    "soft": (lambda n: soft(lesion(n)), "threshold=128", lambda m: m >= 128),
    "some objects": (lambda n: objects(n, 12), "count objects.* threshold=1", lambda m: m > 0),
    "many objects": (lambda n: objects(n, 40), "count objects.* threshold=1", lambda m: m > 0),
    "disc and cup": (lambda n: cup(lesion(n)), "background:255",
                     lambda m: np.select([m == 0, m == 128], [1, 2])),
    "white around": (lambda n: 255 - 255 * lesion(n).astype(np.uint8), "inverted.*background:255",
                     lambda m: m == 0),
    "one around": (lambda n: 1 - lesion(n).astype(np.uint8), "inverted.*background:1",
                   lambda m: m == 0),
    "grey": (lambda n: 254 * lesion(n).astype(np.uint8), "label 254:254", lambda m: m > 0),
    "16 bits": (lambda n: 65535 * lesion(n).astype(np.uint16), "threshold=65535", lambda m: m > 0),
    "three": (lambda n: np.array([0, 127, 255], np.uint8)[core(lesion(n))], "label 127:127",
              lambda m: np.select([m == 127, m == 255], [1, 2])),
    "four": (lambda n: nested(lesion(n)), "label 85:85,label 170:170,label 255:255",
             lambda m: m // 85),
}  # fmt: skip


def written(folder: Path, draw: Any) -> dict[str, Any]:
    masks = {f"p{number}": draw(number) for number in range(CASES)}
    for number, (name, mask) in enumerate(masks.items()):
        sets.save_picture(folder / f"images/{name}.png", image(number, mask > 0))
        sets.save_picture(folder / f"masks/{name}.png", mask)
    return masks


def proposed(message: str) -> dict[str, str]:
    """The keys of the last ``--read`` words of a message."""
    found = shlex.split(message[message.index("--read ") :])[1::2]
    return dict(each.split("=", 1) for each in found)


@pytest.mark.parametrize("kind", MASKS)
def test_numbers_of_masks_are_read_as_check_proposes(tmp_path, kind):
    draw, says, meant = MASKS[kind]
    masks = written(tmp_path, draw)
    message = sets.only(tmp_path, kind="pictures").message
    assert re.search(says, message)
    keys = proposed(message)
    assert list(sets.check(tmp_path, "pictures", **keys).findings) == []
    source = sets.opened(tmp_path, "pictures", **keys)
    assert source.schema.ignore == source.schema.labels.get("ignore")
    for name, mask in masks.items():
        np.testing.assert_array_equal(source.load(name).labels, meant(mask))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("void ring", "takes what is not annotated for the foreground.*ignore:255"),
        ("wide ring", "takes what is not annotated for the foreground.*ignore:255"),
        ("some objects", "6 of 6 masks have no number from threshold=128 on.*threshold=1"),
        ("many objects", "6 of 6 masks have no number from threshold=128 on.*threshold=1"),
    ],
)
def test_a_threshold_that_takes_the_wrong_numbers_is_refused(tmp_path, kind, says):
    written(tmp_path, MASKS[kind][0])
    message = sets.only(tmp_path, kind="pictures", threshold="128").message
    assert re.search(says, message)
    assert list(sets.check(tmp_path, "pictures", **proposed(message)).findings) == []


@pytest.mark.parametrize(
    ("drawn", "typed", "says"),
    [
        ([255], "tumour:1,ignore:2", "tumour:255,ignore:2"),
        ([1, 200], "core:1,rim:2", "core:1,rim:200"),
        ([128, 255], "core:1,rim:2", "label 128:128,label 255:255"),
    ],
)
def test_names_that_were_typed_are_kept_in_what_is_proposed(tmp_path, drawn, typed, says):
    number = np.array([0, *drawn], np.uint8)
    written(tmp_path, lambda n: number[np.minimum(core(lesion(n)), len(drawn))])
    message = sets.only(tmp_path, kind="pictures", labels=typed).message
    assert proposed(message) == {"labels": says}
    with raises_fault("pictures.mask-numbers-unknown", names=says):
        sets.opened(tmp_path, "pictures", labels=typed).load("p0")
    assert list(sets.check(tmp_path, "pictures", labels=says).findings) == []


def test_the_background_of_pictures_is_named_and_0_is_a_class_then(tmp_path, refuse):
    masks = written(tmp_path, MASKS["disc and cup"][0])
    source = sets.opened(tmp_path, "pictures", labels="background:255,disc:128,cup:0")
    assert source.schema.labels == {"background": 0, "cup": 1, "disc": 2}
    assert (source.load("p0").labels == 1).sum() == (masks["p0"] == 0).sum()
    for kind, words in (
        ("pictures", "cup:0,disc:128"),
        ("pictures", "tumour:0"),
        ("nifti", "healthy:0,tumour:1"),
        ("nifti", "background:255,cup:0"),
    ):
        typed = ("check", f"{kind}:{tmp_path}", "--read", f"labels={words}")
        refuse(*typed, code=2, says=["0 is always background"])


def volumes(folder: Path, draw: Any) -> None:
    for number in range(CASES):
        drawn = draw(number)[..., None].repeat(6, -1)
        shown = image(number, drawn > 0).astype(np.int16)
        sets.save(folder / f"images/p{number}.nii.gz", shown)
        sets.save(folder / f"labels/p{number}.nii.gz", drawn)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("void ring", "ignore:255"),
        ("void along an edge", "ignore:255"),
        ("three", "label 127:127,label 255:255"),
        ("four", "label 85:85,label 170:170,label 255:255"),
        ("some objects", "count objects, expected classes.*label 1:1,label 2:2"),
        ("many objects", "count objects, expected classes.*label 1:1,label 2:2"),
    ],
)
def test_values_of_volumes_are_read_as_check_proposes(tmp_path, kind, says):
    volumes(tmp_path, MASKS[kind][0])
    message = sets.only(tmp_path).message
    assert re.search(says, message)
    with raises_fault("nifti.label-values-odd", names=message[message.index("--read") :]):
        _ = sets.opened(tmp_path).schema  # which a fit asks for
    assert list(sets.check(tmp_path, **proposed(message)).findings) == []


def test_volumes_that_are_labelled_all_around_are_a_warning(tmp_path):
    volumes(tmp_path, MASKS["one around"][0])
    finding = sets.only(tmp_path)
    assert finding.level == "warning"
    assert "label value 1 lies along the image's edge" in finding.message


def test_objects_whose_classes_lie_beside_them_are_asked_about(tmp_path):
    volumes(tmp_path, lambda n: lesion(n).astype(np.uint8))
    assert list(sets.check(tmp_path).findings) == []
    (tmp_path / "labels/p0.json").write_text(json.dumps({"instances": {"1": 0}}))
    assert f"as {tmp_path}/labels/p0.json says" in sets.only(tmp_path).message
    with raises_fault("nifti.label-values-odd", names=f"as {tmp_path}/labels/p0.json says"):
        _ = sets.opened(tmp_path).schema


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3, 4)])
def test_classes_that_some_cases_lack_are_no_objects(tmp_path, values):
    def draw(number: int) -> Any:
        """Larger values are inside of smaller ones, and lie in two places."""
        both = lesion(number) | np.roll(lesion(number), 40, 1)
        numbers = both.astype(np.uint8)
        for depth, value in enumerate(values[1 : len(values) - number % 2], 1):
            numbers[binary_erosion(both, iterations=2 * depth)] = value
        return numbers

    volumes(tmp_path, draw)
    assert "error" not in {finding.level for finding in sets.check(tmp_path).findings}
