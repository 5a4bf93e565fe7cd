"""On a CPU all features of a step have their channels innermost.

Operators whose arguments differ in their order in memory take many times as long, in bf16.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gansynth.core.generator import Batch
from gansynth.core.schema import Condition, Schema
from gansynth.runtime.devices import native_bf16
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.whole import CGAN3D

FORMS = {4: torch.channels_last, 5: torch.channels_last_3d}
BATCH = 2
VERDICTS = ["aten.convolution_backward.default"] * 3
"""Of the perceptual segmenter's levels: the gradient of a cross-entropy, two channels."""


def order(x: Any) -> str | None:
    """Return where channels of features lie; None for one channel and for other tensors."""
    features = isinstance(x, Tensor) and x.ndim in FORMS and x.shape[0] in (BATCH, 2 * BATCH)
    if not features or 1 in x.shape[1:]:
        return None
    if x.is_contiguous():
        return "first"
    return "last" if x.is_contiguous(memory_format=FORMS[x.ndim]) else None


class Orders(TorchDispatchMode):
    """Collects operators whose arguments have different orders."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []
        self.last = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        orders = {order(x) for x in args if order(x)}
        self.last += orders == {"last"}
        if len(orders) > 1:
            self.mixed.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("options", "mixed"), [({}, []), ({"perceptual": 1}, VERDICTS)])
@pytest.mark.parametrize("dims", [2, 3])
def test_no_operator_of_a_step_or_a_sample_mixes_two_orders(dims, options, mixed):
    if dims == 3 and not native_bf16(torch.device("cpu")):
        pytest.skip("this CPU has no bf16 of its own: PyTorch's 3D convolutions lay channels first")
    shape = (16,) * dims
    schema = Schema(("T1",), {"background": 0, "organ": 1}, (1.0,) * dims, "DHW"[-dims:])
    generator = CGAN3D(schema, shape, CGAN3D.Options(**options))
    image = torch.randn(BATCH, 1, *shape)
    labels = (image[:, 0] > 0.5).long()
    settings = {"batch_size": BATCH, "steps": 1, "precision": "bf16", "diversity": 0}
    with Orders() as orders:
        train(generator, lambda *_: Batch(image, labels), FitOptions.model_validate(settings))
        generator.sample([Condition(given) for given in labels.numpy()], range(BATCH))
    assert orders.last > 100
    assert orders.mixed == mixed
