from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from gansynth.metrics.features import EncoderOptions, make_encoder, train_encoder
from gansynth.runtime.devices import (
    device_name,
    place_for,
    producer_device,
    resolve,
    seeded,
    set_seed,
    tf32,
)
from gansynth.training.loop import train
from tests.expected import raises_fault
from tests.training.zoo.members import loop, member, toy_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def seeds(monkeypatch) -> list[object]:
    """Seeds that all CUDA devices were given, or one of them with its number."""
    found: list[object] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        found.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "manual_seed_all", found.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", found.append)
    monkeypatch.setattr(torch.cuda, "device", current)
    return found


def test_seeding_seeds_the_cpu_and_the_device_that_is_named(seeds):
    set_seed(5, CUDA)
    assert seeds == [CUDA, 5]
    assert torch.initial_seed() == 5
    set_seed(6, CPU)
    assert (seeds, torch.initial_seed()) == ([CUDA, 5], 6)


def test_a_seed_for_a_while_gives_its_numbers_and_leaves_the_stream_as_it_was():
    before = torch.get_rng_state()
    with seeded(3):
        drawn = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_who_seeds_on_the_cpu_leaves_cudas_random_numbers_alone(seeds):
    make_encoder(1)
    train_encoder([torch.rand(4, 1, 64, 64)], EncoderOptions(steps=1, batch_size=2))
    assert seeds == []
    gan, batches = member("mmgan"), toy_batches("mmgan")
    seeds.clear()
    train(gan, batches, loop("mmgan", steps=1, decay="none"))
    assert seeds == []


@pytest.mark.parametrize(
    ("convolutions", "products", "said"),
    [
        (True, False, "convolutions"),
        (True, True, "convolutions and matrix products"),
        (False, False, "none"),
    ],
)
def test_fp32_says_where_tf32_takes_its_place(monkeypatch, convolutions, products, said):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    convolution, product = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolution.allow_tf32, product.allow_tf32
    try:
        convolution.allow_tf32, product.allow_tf32 = convolutions, products
        assert tf32(CUDA) == said
        assert tf32(CPU) == "none"
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        assert tf32(CUDA) == "none"
    finally:
        convolution.allow_tf32, product.allow_tf32 = before


@pytest.mark.parametrize(
    ("size", "device", "place"), [(50, CUDA, CUDA), (51, CUDA, CPU), (51, CPU, CPU)]
)
def test_what_takes_over_half_of_a_gpus_free_memory_stays_on_the_cpu(
    monkeypatch, size, device, place
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert place_for(size, device) == place


def test_a_device_goes_by_its_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert (device_name(CUDA), device_name(CPU)) == ("GPU 1", "cpu")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")],
)
def test_auto_is_the_fastest_precision_of_a_gpu(monkeypatch, capability, precision):
    def native(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", native)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve("auto", CUDA) == precision


@pytest.mark.parametrize(
    ("asked", "there", "training", "device"),
    [
        *(("auto", 0, (), "cpu"), ("auto", 1, (0,), "cuda:0"), ("auto", 1, (), "cuda:0")),
        *(("auto", 2, (0,), "cuda:1"), ("auto", 2, (1,), "cuda:0"), ("auto", 2, (1, 0), "cuda:1")),
        *(("auto", 4, (0, 1), "cuda:2"), ("cpu", 2, (0,), "cpu")),
        *(("cuda", 2, (0,), "cuda:0"), ("cuda:1", 2, (0,), "cuda:1")),
    ],
)
def test_the_producer_gets_what_was_asked_for_or_what_the_training_leaves_free(
    monkeypatch, asked, there, training, device
):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert producer_device(asked, training) == device


@pytest.mark.fault(44)
@pytest.mark.skipif(torch.backends.mps.is_available(), reason="torch uses an Apple GPU here")
def test_an_apple_gpu_that_is_not_there_is_refused():
    with raises_fault("devices.mps-missing", names="use --device auto or cpu"):
        producer_device("mps", ())


def test_a_device_that_cannot_be_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with raises_fault("devices.device-name-unknown"):
        producer_device("gpu", (0,))
    with raises_fault("devices.cuda-device-missing"):
        producer_device("cuda:9", (0,))
