"""``check_adapter`` on what adapters make of images: honest ones pass, each cheat fails by name."""
# mypy: disallow-untyped-calls=False

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.errors import DataFault, UsageFault
from gansynth.testing import CheckReport, ToySource, check_adapter
from tests.test_testing import ToyAdapter


class Honest(ToyAdapter):
    """Mean and deviation of each channel."""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return (folder / "weights").is_file()

    @classmethod
    def features(cls, folder, images, schema, *, where=None, device="auto"):
        if len(schema.channels) != 2:
            raise DataFault("two channels, please")
        where = where or [None] * len(images)
        rows = [cls.row(image, chosen) for image, chosen in zip(images, where, strict=True)]
        return np.array(rows, np.float32), "honest"

    @classmethod
    def row(cls, image: Any, chosen: Any) -> Any:
        seen = image.reshape(len(image), -1) if chosen is None else image[:, chosen]
        return [*seen.mean(1), *seen.std(1)]


class KnowsEverything(Honest):
    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return True


class KnowsNothing(Honest):
    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return False


class RaisesAtNothing(Honest):
    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return "weights" in [path.name for path in folder.iterdir()]


class Flat(Honest):
    @classmethod
    def row(cls, image: Any, chosen: Any) -> Any:
        return image.mean()


class Wide(Honest):
    @classmethod
    def features(cls, *given, **named):
        found, title = super().features(*given, **named)
        return found.astype(np.float64), title


class Nameless(Honest):
    @classmethod
    def features(cls, *given, **named):
        return super().features(*given, **named)[0], ""


class AllAlike(Honest):
    @classmethod
    def row(cls, image: Any, chosen: Any) -> Any:
        return [1.0, 2.0] if chosen is None or chosen.all() else [3.0, 4.0]


class AmongThemselves(Honest):
    """Normalises over the images that it is given."""

    @classmethod
    def features(cls, *given, **named):
        found, title = super().features(*given, **named)
        return found - found.mean(0), title


class Deaf(Honest):
    @classmethod
    def row(cls, image: Any, chosen: Any) -> Any:
        return super().row(image, None)


class Undemanding(Honest):
    @classmethod
    def features(cls, folder, images, schema, *, where=None, device="auto"):
        return super().features(
            folder, [i[:2] for i in images], ToySource(2).schema, where=where, device=device
        )


class Careless(Honest):
    @classmethod
    def row(cls, image: Any, chosen: Any) -> Any:
        found = super().row(image, chosen)
        image[:, 0] = 0.5
        return found


def looked(folder: Path, cls: type[Honest]) -> dict[str, str]:
    """Verdicts of the checks of features, by name."""
    (folder / "host").mkdir()
    (folder / "host" / "weights").touch()
    report: CheckReport = check_adapter(
        cls(ToySource(2)), workspace=folder / "work", trained=folder / "host"
    )
    return {
        check.name.removeprefix("features: "): check.verdict
        for check in report.checks
        if check.name.startswith("features: ")
    }


def test_an_honest_one_passes(tmp_path):
    assert set(looked(tmp_path, Honest).values()) == {"passed"}


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (KnowsEverything, "folder"),
        (KnowsNothing, "folder"),
        (RaisesAtNothing, "folder"),
        (Flat, "shape"),
        (Wide, "shape"),
        (Nameless, "shape"),
        (AllAlike, "images matter"),
        (AmongThemselves, "others do not"),
        (Deaf, "where"),
        (Undemanding, "channels"),
        (Careless, "inputs untouched"),
    ],
)
def test_a_wrong_one_fails_the_check_that_is_meant_for_it(cls, name, tmp_path):
    found = looked(tmp_path, cls)
    assert found[name] == "failed"


def test_one_that_averages_whole_images_only_may_say_so(tmp_path):
    class WholeImages(Honest):
        @classmethod
        def features(cls, folder, images, schema, *, where=None, device="auto"):
            if where is not None:
                raise UsageFault("whole images only")
            return super().features(folder, images, schema, where=where, device=device)

    found = looked(tmp_path, WholeImages)
    assert found.pop("where") == "skipped"
    assert set(found.values()) == {"passed"}


def test_without_a_trained_folder_nothing_is_asked(tmp_path):
    report = check_adapter(KnowsEverything(ToySource(2)), workspace=tmp_path)
    assert not [check for check in report.checks if check.name.startswith("features: ")]
