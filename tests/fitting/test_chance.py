from pathlib import Path
from typing import Any

import pytest

from gansynth.fitting.chance import FEWEST_LINES, warn_at_chance
from gansynth.nn.losses import ADVERSARIAL
from tests.recorder import Recorder

NAME = "discriminator/adversarial"


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([0.251] * FEWEST_LINES, True),
        ([0.1] * FEWEST_LINES + [0.249] * FEWEST_LINES, True),
        ([0.249] * FEWEST_LINES + [0.2] * (FEWEST_LINES + 1), False),
        ([0.25] * (FEWEST_LINES - 1), False),
        ([float("nan")] * FEWEST_LINES, False),
    ],
    ids=["from the start", "half of the fit", "less than half", "too few lines", "not finite"],
)
def test_a_discriminator_at_chance_for_long_is_reported(
    tmp_path: Path, losses: list[float], warned: bool
) -> None:
    path, recorder = tmp_path / "metrics.csv", Recorder()
    path.write_text("\n".join(["step," + NAME, *(f"1,{loss}" for loss in losses), ""]))
    warn_at_chance(path, {NAME: 0.25}, recorder, "it needs more")
    warn_at_chance(path, {}, recorder, "")
    assert [warning.endswith("it needs more") for warning in recorder.warned] == [True] * warned


@pytest.mark.parametrize(
    ("name", "chance"), [("lsgan", 0.25), ("hinge", 2.0), ("nonsaturating", 1.3863), ("wgan", None)]
)
def test_the_loss_of_guessing(name: Any, chance: float | None) -> None:
    assert ADVERSARIAL[name].chance == (chance and pytest.approx(chance, 1e-4))
