import pytest

from gansynth.runtime.errors import EnvironmentFault
from gansynth_nnunet import launch


def test_a_killed_loader_worker_is_one_line_that_says_how_to_go_on(monkeypatch):
    def run_training(*words: object, **named: object) -> None:
        raise RuntimeError("One or more background workers are no longer alive. Exiting.")

    monkeypatch.setattr("nnunetv2.run.run_training.run_training", run_training)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    with pytest.raises(EnvironmentFault, match="the same command goes on from the last checkpoint"):
        launch.run(["Dataset004_X", "2d", "0", "-device", "cpu"])
