"""How a training gives up its bank."""

import pytest

from gansynth.bank.training_bank import TrainingBank


class CutShort:
    """A producer that is waited for when the training is told to end."""

    def stop(self):
        raise SystemExit(143)


def test_a_signal_while_the_producer_is_ended_leaves_no_bank(tmp_path):
    bank = tmp_path / "bank"
    bank.mkdir()
    training_bank = TrainingBank.__new__(TrainingBank)
    training_bank.supervisor, training_bank._own = CutShort(), bank  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        training_bank.close()
    assert not bank.exists()
