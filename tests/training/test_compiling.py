"""Option ``compile`` of the loop: equal results, and generators that cannot be compiled."""

import pytest
import torch

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.training import compiling
from gansynth.training.checkpoint_manager import TrainingCallbacks
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


def losses(name, choice, **callbacks):
    options = members.loop(name, steps=2, compile=choice)
    told = TrainingCallbacks(**callbacks)
    return train(members.member(name), members.toy_batches(name), options, callbacks=told).losses


@pytest.mark.slow
def test_a_compiled_training_gives_the_losses_of_a_plain_one(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # which generates no code
    monkeypatch.setitem(members.ZOO, "pair", members.Member(CGAN3D, PAIR, (8, 8)))
    counts = torch._dynamo.utils.counters["stats"]
    counts.clear()
    assert losses("pair", "on") == pytest.approx(losses("pair", "off"), rel=1e-4)
    assert counts["unique_graphs"] >= 2


def test_auto_compiles_nothing(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", None)
    assert losses("wgan", "auto")


def test_steps_run_as_they_are_where_there_is_no_gpu_and_who_asks_for_graphs_is_told():
    class Said(NullReporter):
        def say(self, text: str) -> None:
            lines.append(text)

    lines, told = list[str](), Said()
    assert losses("wgan_gp", "graphs", reporter=told) == losses("wgan_gp", "off", reporter=told)
    assert lines == ["compile=graphs: the device is cpu, not CUDA, so steps run as they are"]


def test_networks_are_compiled_but_in_previews_and_after_the_training():
    generator = members.member("cgan3d")

    def compiled() -> set[bool]:
        return {net._compiled_call_impl is not None for net in generator.nets.values()}

    def fail() -> None:
        with compiling.compiled(generator, "on"):
            assert compiled() == {True}
            with compiling.as_written(generator):
                assert compiled() == {False}
            assert compiled() == {True}
            raise torch._dynamo.exc.TorchDynamoException("none here")

    with pytest.raises(EnvironmentFault, match=r"compile=on: none here; .* use compile=off"):
        fail()
    assert compiled() == {False}


@pytest.mark.parametrize(
    ("name", "says"),
    [("cpggan", "cpggan has no network that can be compiled"), ("hinge_r1", ""), ("wgan_gp", "")],
)
def test_what_grows_is_refused_and_a_critic_with_a_gradient_penalty_is_not_compiled(name, says):
    if not says:
        assert members.member(name).capabilities.compiles == ("generator",)
        return
    with pytest.raises(UsageFault, match=f"compile=on: {says}"):
        losses(name, "on")
