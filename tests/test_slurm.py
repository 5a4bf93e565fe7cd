"""``examples/slurm``: the scripts, run by stand-ins for Slurm's commands."""

import os
import re
import signal
import subprocess

import pytest

from tests.house import ROOT
from tests.processes import until

SCRIPTS = ROOT / "examples" / "slurm"
COMMANDS = {
    # Runs a copy of the script, as Slurm does, in one job of its array; again if that asks for it.
    "sbatch": """
        export SLURM_ARRAY_TASK_ID=0 SLURM_JOB_ID=100
        cp "$1" "$SPOOL/script"
        touch "$SPOOL/requeued"
        while rm "$SPOOL/requeued" 2> /dev/null; do
            bash "$SPOOL/script" "${@:2}" >> "$SPOOL/log" 2>&1 &
            echo $! > "$SPOOL/pid"
            wait $! || true
        done""",
    "scontrol": """[ "$*" = "requeue 100" ] && touch "$SPOOL/requeued" """,
}
EPOCH, BEGAN = re.compile(r": Epoch (\d+)"), "*/*/fold_0/training_log*.txt"


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a cluster's user."""
    for name, body in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash\n{body}\n")
        command.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SPOOL": str(tmp_path), "GANSYNTH_WORK": str(tmp_path)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_goes_on_in_the_next_job_and_a_finished_one_is_kept(
    slurm, tmp_path, toy_nnunet, fitted
):
    slurm["nnUNet_raw"] = str(toy_nnunet.raw.parent)
    slurm["nnUNet_preprocessed"] = str(toy_nnunet.preprocessed.parent)
    slurm["nnUNet_n_proc_DA"] = "0"
    lengths = {"num_epochs": 6, "num_iterations_per_epoch": 4, "num_val_iterations_per_epoch": 1}
    words = ["sbatch", f"{SCRIPTS}/augment.sh", "nnunet:501", "--plans", toy_nnunet.plans]
    words += ["--ratio", "1:1", "--generator", str(fitted), "-o", str(tmp_path / "results")]
    words += [f"--set={key}={n}" for key, n in {**lengths, "save_every": 1}.items()]
    words += ["--set=quick_validation=yes"]

    def epochs() -> list[list[str]]:
        """Epochs in each of nnU-Net's own logs."""
        logs = sorted((tmp_path / "results").glob(BEGAN))
        return [EPOCH.findall(log.read_text()) for log in logs]

    with subprocess.Popen(words, env=slurm) as typed:
        until(lambda: epochs() != [] and "1" in epochs()[0])
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)  # its time is nearly up
        assert typed.wait(600) == 0
    first, second = epochs()
    assert first[0] == "0"
    assert second[0] in [*first[1:], str(len(first))]
    assert second[-1] == "5"
    subprocess.run(words, env=slurm, check=True)
    assert epochs() == [first, second]
    said = (tmp_path / "log").read_text()
    assert "it goes on in a job of the same number" in said
    assert "is finished: " in said
