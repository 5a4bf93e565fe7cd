"""Option ``compile`` of the loop: equal results, and generators that cannot be compiled."""

import pytest
import torch

from gansynth.nn.networks.blocks import ConvUnit
from gansynth.runtime.errors import UsageFault
from gansynth.training import compiling
from gansynth.training.loop import train
from gansynth_cgan3d.model import CGAN3D
from tests.training.zoo import members

pytestmark = [  # torch's own
    pytest.mark.filterwarnings("ignore:The .grad attribute"),
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:.* should not be instantiated"),
]
TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1}
PAIR = {**TINY, "norm": "batch", "feature_matching": 0}


@pytest.fixture
def quick_backend(monkeypatch):
    """Captures networks and their gradients, and generates no code."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")


def losses(name, choice):
    options = members.loop(name, steps=2, compile=choice)
    return train(members.member(name), members.toy_batches(name), options).losses


@pytest.mark.usefixtures("quick_backend")
@pytest.mark.parametrize("choice", [pytest.param("on", marks=pytest.mark.slow), "graphs"])
def test_a_compiled_training_gives_the_losses_of_a_plain_one(monkeypatch, choice):
    monkeypatch.setitem(members.ZOO, "pair", members.Member(CGAN3D, PAIR, (8, 8)))
    counts = torch._dynamo.utils.counters["stats"]
    counts.clear()
    assert losses("pair", choice) == pytest.approx(losses("pair", "off"), rel=1e-4)
    assert counts["unique_graphs"] >= 2


def test_a_normalisation_does_not_break_a_compiled_graph():
    torch.manual_seed(0)
    layer = ConvUnit(2, 4, "instance", "leaky_relu")
    explained = torch._dynamo.explain(layer)(torch.randn(2, 4, 8, 8, requires_grad=True))
    assert explained.graph_break_count == 0


def test_auto_compiles_nothing(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", None)
    assert losses("wgan", "auto")


def test_networks_are_as_written_in_previews_and_after_the_training():
    generator = members.member("cgan3d")

    def compiled() -> set[bool]:
        return {net._compiled_call_impl is not None for net in generator.nets.values()}

    with compiling.compiled(generator, "on"):
        assert compiled() == {True}
        with compiling.as_written(generator):
            assert compiled() == {False}
        assert compiled() == {True}
    assert compiled() == {False}


@pytest.mark.parametrize("name", ["wgan_gp", "hinge_r1"])
def test_a_critic_with_a_gradient_penalty_is_not_compiled(name):
    assert members.member(name).capabilities.compiles == ("generator",)


def test_a_growing_generator_is_refused():
    with pytest.raises(UsageFault, match="compile=on: cpggan has no network that can be compiled"):
        losses("cpggan", "on")
