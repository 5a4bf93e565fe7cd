"""Option ``compile`` of the loop, where there is no GPU."""

from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train
from tests.recorder import Recorder
from tests.training.zoo import members


def losses(name, choice, **callbacks):
    options = members.loop(name, steps=2, compile=choice)
    told = TrainingCallbacks(**callbacks)
    return train(members.member(name), members.toy_batches(name), options, callbacks=told).losses


def test_steps_run_as_they_are_where_there_is_no_gpu_and_who_asks_for_graphs_is_told():
    told = Recorder()
    assert losses("wgan_gp", "graphs", reporter=told) == losses("wgan_gp", "off", reporter=told)
    assert told.said == ["compile=graphs: the device is cpu, not CUDA, so steps run as they are"]
