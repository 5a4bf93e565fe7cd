"""``host_features``: which host a folder is of, what is asked of it, what may come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.adapter import Adapter
from gansynth.errors import DataFault, UsageFault
from gansynth.hookspecs import hookimpl
from gansynth.host_features import host_features
from gansynth.registry import Registry, installed
from gansynth.schema import Schema
from tests.test_testing import ToyAdapter

SCHEMA = Schema(("T1",), {"background": 0, "lesion": 1}, (1.0, 1.0), "HW")


class Marked(ToyAdapter):
    """Knows a folder by a file in it; its features are means and what it was asked for."""

    name = "marked"
    file = "marked.txt"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return (folder / cls.file).is_file()

    @classmethod
    def features(cls, folder, images, schema, *, where=None, device="auto"):
        chosen = [None] * len(images) if where is None else where
        pairs = zip(images, chosen, strict=True)
        rows = [[i.mean() if w is None else i[:, w].mean()] for i, w in pairs]
        return np.array(rows, np.float32), f"{cls.name} on {device}"


class Other(Marked):
    name = "other"
    file = "other.txt"


class Silent(ToyAdapter):
    """Has nothing to say of any folder."""

    name = "silent"


class Raising(Marked):
    name = "raising"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        raise RuntimeError("a stranger's mistake")


def registry_of(*adapters: type[Adapter]) -> Registry:
    class Plugin:
        @hookimpl
        def register_adapters(self, register: Any) -> None:
            for adapter in adapters:
                register(adapter.name, lambda adapter=adapter: adapter)

    registry = Registry()
    registry.add(Plugin(), "tests")
    assert not registry.broken
    return registry


@pytest.fixture
def trained(tmp_path) -> Path:
    (tmp_path / "marked.txt").touch()
    return Path(tmp_path)


def images(*values: float) -> list[Any]:
    return [np.full((1, 4, 4), value, np.float32) for value in values]


def look(folder: Path, *adapters: type[Adapter], pictures: Any = None, **how: Any) -> Any:
    return host_features(
        folder,
        images(1, 2) if pictures is None else pictures,
        SCHEMA,
        registry=registry_of(*(adapters or (Silent, Other, Marked))),
        **how,
    )


def test_the_host_that_knows_the_folder_looks(trained):
    found, title = look(trained, device="cpu")
    assert found.tolist() == [[1.0], [2.0]]
    assert title == "marked on cpu"


def test_labels_say_where_features_are_averaged(trained):
    pictures = images(0, 0)
    labels = [np.zeros((4, 4), np.int16) for _ in pictures]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        label[1, 2] = 1
        picture[0, 1, 2] = 5 + number
    found, _ = look(trained, pictures=pictures, labels=labels)
    assert found.tolist() == [[5.0], [6.0]]


def test_of_a_folder_that_nobody_knows_it_says_who_was_asked(tmp_path):
    with pytest.raises(UsageFault) as caught:
        look(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: no host has been trained in it, expected what a training")
    assert "of marked, other has left" in said
    assert "silent" not in said


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageFault, match="nowhere: no such folder, expected"):
        look(tmp_path / "nowhere")


def test_a_folder_of_two_hosts_is_refused(trained):
    (trained / "other.txt").touch()
    with pytest.raises(UsageFault, match="marked and other both take it for theirs"):
        look(trained)


def test_a_broken_adapter_is_in_nobodys_way_and_named_where_none_is_found(trained, tmp_path):
    assert look(trained, Raising, Marked)[1] == "marked on auto"
    (trained / "marked.txt").unlink()
    with pytest.raises(UsageFault, match=r"\(raising could not be asked\)"):
        look(trained, Raising, Marked)


def test_a_host_that_knows_its_folder_but_has_no_features_says_so(trained):
    class Mute(ToyAdapter):
        name = "mute"

        @classmethod
        def recognises(cls, folder: Path) -> bool:
            return True

    with pytest.raises(UsageFault, match="mute does not say what its network makes of images"):
        look(trained, Mute)


def test_images_and_labels_are_checked_before_any_host_is_asked(tmp_path):
    bad = images(1, 2)
    bad[1][0, 0, 0] = np.nan
    labels = [np.ones((4, 4), np.int16), np.zeros((4, 4), np.int16)]
    for given, said in (
        ({"pictures": []}, "no image, expected at least one"),
        ({"pictures": bad}, "image 1: image holds 1 NaN"),
        ({"labels": labels[:1]}, "1 label maps for 2 images"),
        ({"labels": labels}, "image 1: its labels have no voxel above background"),
    ):
        with pytest.raises(DataFault, match=said):
            look(tmp_path, **given)


@pytest.mark.parametrize(
    ("rows", "fault", "said"),
    [
        ([[1.0], [np.inf]], DataFault, "features of image 1 are not finite"),
        ([[1.0]], UsageFault, r"features of shape \(1, 1\) for 2 images"),
        ([1.0, 2.0], UsageFault, r"features of shape \(2,\) for 2 images"),
    ],
)
def test_features_that_are_none_are_refused(trained, rows, fault, said):
    class Odd(Marked):
        name = "odd"

        @classmethod
        def features(cls, folder, images, schema, *, where=None, device="auto"):
            return np.array(rows, np.float32), "odd"

    with pytest.raises(fault, match=said):
        look(trained, Odd)


def test_every_host_of_ours_knows_its_own_folders(tmp_path):
    with pytest.raises(UsageFault, match="of deepmedic, nnunet, segmenter, yolo has left"):
        host_features(tmp_path, images(1), SCHEMA)
    assert {"deepmedic", "nnunet", "segmenter", "yolo"} <= set(installed().names("adapters"))
