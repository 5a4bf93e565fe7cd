"""What the user sees of a training in a process of its own."""

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gansynth.hosts.contract.launch import run_training_process
from gansynth.hosts.contract.record import LOG
from gansynth.runtime.errors import GansynthError, TrainingFault
from gansynth.runtime.progress import RichReporter

TRAINING = """
import logging, sys, time
from gansynth.runtime.child import entry, show
from gansynth.runtime.errors import DataFault

def work():
    print({"patch_size": [40] * 60})
    show(say="waiting for 60 synthetic samples")
    for count in range(4, 57, 4):
        show(unit="sample", done=count, total=60)
    sys.stderr.write("loading 40%")  # a bar of the host's own, which ends no line
    show(unit="epoch", done=18.001, total=20, synthetic="0%")
    logging.getLogger("gansynth").warning("draws are no longer logged")
    logging.getLogger("host").warning("no predictions yet")
    show(unit="epoch", done=19.0, total=20, synthetic="48%", loss=-0.431, Dice=0.612)
    END
    show(unit="epoch", done=20.0, total=20, synthetic="50%")
    show(say="WARNING: samples are few")

sys.exit(entry(work))
"""
WARNINGS = ["warning: draws are no longer logged", "warning: samples are few"]


def train(folder: Path, stream: Any, end: str = "pass", quiet: bool = False) -> str:
    """What a reporter has written of a training that ends as told."""
    (folder / "training.py").write_text(TRAINING.replace("END", end))
    how: Any = ("training", [], folder, "the training")
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    run_training_process(*how, variables=variables, reporter=RichReporter(stream, quiet=quiet))
    shown: str = stream.getvalue().replace(str(folder / LOG), "LOG")
    return shown


def test_without_a_terminal_it_is_plain_lines_and_the_host_s_own_words_are_in_the_log(tmp_path):
    said = train(tmp_path, io.StringIO()).splitlines()
    begun = [
        f"the training; its own words: {LOG} in its folder",
        "waiting for 60 synthetic samples",
    ]
    assert said[:3] == [*begun, WARNINGS[0]]
    last = r"epoch: 20/20 \(100%\)  elapsed 0:0\d  synthetic 50%  loss -0\.431  Dice 0\.612"
    assert re.fullmatch(last, said[-2])
    assert said[-1] == WARNINGS[1]
    logged = (tmp_path / LOG).read_text()
    assert "{'patch_size': [40, 40, " in logged
    assert "loading 40%" in logged
    assert "waiting" not in logged
    assert "epoch" not in logged


@pytest.mark.parametrize(
    ("end", "fault", "says"),
    [
        ("raise OSError('odd')", TrainingFault, "LOG: the training failed (exit 1): OSError: odd"),
        ("raise DataFault('test.fault', 'a.nii: why')", GansynthError, "a.nii: why"),
    ],
)
def test_quiet_leaves_the_warnings_and_a_failure_which_is_one_line(tmp_path, end, fault, says):
    stream = io.StringIO()
    with pytest.raises(fault) as caught:
        train(tmp_path, stream, end, quiet=True)
    assert str(caught.value).replace(str(tmp_path / LOG), "LOG") == says
    assert stream.getvalue().splitlines() == WARNINGS[:1]
