"""What the trainer is told by the environment; and how a CPU predicts with a small network."""

import json

import pytest

from gansynth.errors import UsageFault
from gansynth_nnunet.config import MixConfig

# -- what it is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"GANSYNTH_GENERATOR": "runs/g0"}, "GANSYNTH_RATIO is not set"),
        ({"GANSYNTH_RATIO": "1:1"}, "GANSYNTH_GENERATOR=runs/g0"),
        ({"GANSYNTH_RATIO": "1", "GANSYNTH_GENERATOR": "g"}, "expected REAL:SYNTHETIC"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_SET": "num_epoch=3"}, "num_epoch=3: unknown key"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_SET": "num_epochs=two"}, "a whole number"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_SET": "num_epochs=0"}, "at least 1"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_SET": "initial_lr=nan"}, "initial_lr=nan"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_SET": "num_epochs"}, "has no '='"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_FROZEN": "maybe"}, "GANSYNTH_FROZEN=maybe"),
        ({"GANSYNTH_RATIO": "1:0", "GANSYNTH_BANK_SIZE": "x"}, "--bank-size 'x'"),
        ({"GANSYNTH_CONFIG": "/no/such.json"}, "/no/such.json: cannot be read"),
    ],
)
def test_a_wrong_variable_is_named(variables, message):
    with pytest.raises(UsageFault) as caught:
        MixConfig.from_environment(variables)
    assert message in str(caught.value)


def test_a_silent_environment_says_nothing():
    assert MixConfig.from_environment({"PATH": "/bin"}) is None


def test_what_the_adapter_writes_is_read_back(tmp_path):
    from gansynth.adapter import Injection
    from gansynth.lineage import CaseRecord
    from gansynth.ratio import Ratio

    config = MixConfig(
        Injection(tmp_path / "g0", Ratio.parse("1:2"), edits=("elastic",)),
        settings={"num_epochs": 3, "initial_lr": 0.1},
        held_out=(CaseRecord("a", "s", "0"),),
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_json()))
    assert MixConfig.from_environment({"GANSYNTH_CONFIG": str(file)}) == config


# -- predicting on a CPU -------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_samples_given_twice_change_no_prediction(monkeypatch, batch):
    import torch

    from gansynth_nnunet import cpu_inference

    monkeypatch.setattr(cpu_inference, "_seconds", lambda network, shape: -shape[0])
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 2, 3)).eval()
    seen = []
    network[0].register_forward_pre_hook(lambda layer, arguments: seen.append(len(arguments[0])))
    x = torch.randn(batch, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = network(x)
        with cpu_inference.twice_if_faster(network, (1, 9, 8, 7)) as doubled:
            assert doubled
            twice = network(x)
        assert twice.shape == plain.shape
        assert torch.allclose(twice, plain, atol=1e-5)
        network(x)
    assert seen == [batch, max(batch, 2), batch]


def test_samples_are_given_once_where_that_is_faster(monkeypatch):
    import torch

    from gansynth_nnunet import cpu_inference

    monkeypatch.setattr(cpu_inference, "_seconds", lambda network, shape: shape[0])
    with cpu_inference.twice_if_faster(torch.nn.Conv3d(1, 4, 3), (1, 9, 8, 7)) as doubled:
        assert not doubled
