"""How a training gives up its bank."""

import pytest

from gansynth.bank.supply import Supply


class CutShort:
    """A producer that is waited for when the training is told to end."""

    def stop(self):
        raise SystemExit(143)


def test_a_signal_while_the_producer_is_ended_leaves_no_bank(tmp_path):
    bank = tmp_path / "bank"
    bank.mkdir()
    supply = Supply.__new__(Supply)
    supply.keeper, supply._own = CutShort(), bank  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        supply.close()
    assert not bank.exists()
