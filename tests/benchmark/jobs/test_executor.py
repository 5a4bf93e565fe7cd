"""Executors by name."""

import pytest

from gansynth.benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth.benchmark.jobs.machine import cuda_devices, device_names
from gansynth.benchmark.jobs.ray_executor import RayExecutor
from gansynth.runtime.errors import UsageFault


def test_local_has_as_many_slots_as_asked():
    executor = parse_executor("local:3")
    assert isinstance(executor, LocalExecutor)
    assert executor.slots == 3


@pytest.mark.parametrize(
    ("text", "shares"),
    [("ray", (1, None)), ("ray:cpus=2", (2, None)), ("ray:gpus=0.5,cpus=4", (4, 0.5))],
)
def test_ray_gives_each_job_its_shares(text, shares):
    executor = parse_executor(text)
    assert isinstance(executor, RayExecutor)
    assert (executor.cpus, executor.gpus) == shares


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("locl", "expected local, local:4, ray or .* Did you mean 'local'"),
        *((text, "expected local, local:4") for text in ("", "local:")),
        *((f"local:{n}", "expected a number of jobs at once") for n in (0, -1, "two")),
        ("ray:4", "'4': expected cpus"),
        *(
            (f"ray:{share}", f"'{share}': expected cpus")
            for share in ("cpus=0", "cpus=nan", "gpus=1.5", "gpus=inf")
        ),
        ("ray:gpus=1,gpus=2", "'gpus=2': expected cpus"),
    ],
)
def test_other_words_are_refused(text, says):
    with pytest.raises(UsageFault, match=says):
        parse_executor(text)


def test_hidden_gpus_are_no_devices(monkeypatch):
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert device_names({"CUDA_VISIBLE_DEVICES": "-1"}) == "cpu"
