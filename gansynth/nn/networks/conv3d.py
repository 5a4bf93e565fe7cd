"""A 3D convolution that stays quick for small float32 volumes on a CPU.

There torch hands a convolution to oneDNN only if B * C * D * H exceeds 20480, or if it strides or
dilates; its plain one is ten times slower (16 channels of 32^3: 27 ms instead of 1.5). A few empty
samples lift a batch over the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

THRESHOLD = 20480
MOST = 4
"""Times the batch may grow by; beyond it there is too little work for it to pay."""


class Conv3d(nn.Conv3d):
    """``nn.Conv3d``, with a way around torch's slow path; the same numbers but for rounding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, convolve = len(input), super()._conv_forward
        wanted = self._enough(input)
        if wanted <= batch:
            plain: Tensor = convolve(input, weight, bias)
            return plain
        form = torch.contiguous_format
        if input.is_contiguous(memory_format=torch.channels_last_3d):
            form = torch.channels_last_3d
        empty = input.new_zeros((wanted - batch, *input.shape[1:])).contiguous(memory_format=form)
        made: Tensor = convolve(torch.cat((input, empty)), weight, bias)
        return made[:batch]

    def _enough(self, x: Tensor) -> int:
        """Samples with which oneDNN takes it; 0 where that is not the question, or not worth it."""
        slow = (
            x.device.type == "cpu"
            and type(x) is Tensor  # not a fake one, which stands for another device's
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and max(*self.stride, *self.dilation) == 1
            and 1 < max(self.kernel_size) <= 3
        )
        if not slow:
            return 0
        batch, channels, depth, height = x.shape[:4]
        wanted = THRESHOLD // max(1, channels * depth * height) + 1
        return wanted if wanted <= MOST * batch else 0
