"""A segmenter whose features give a perceptual loss for images of its own domain.

Doncenco 2022 proposed a perceptual loss (Johnson et al. 2016) of a network trained on MR. This one
learns the run's labels on the run's training cases, so it leaks no other case.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gansynth.nn.networks.blocks import ConvUnit, channels_last, conv, downsampling, enlarge


class Perceptor(nn.Module):
    """Segments (B, in_channels, ...) by the sum of logits of all resolutions."""

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        classes: int,
        width: int,
        strides: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(len(strides) + 1)]
        self.first = nn.ModuleList(
            [conv(ndim, in_channels, width, 3)]
            + [
                downsampling("strided", ndim, widths[i], widths[i + 1], stride)
                for i, stride in enumerate(strides)
            ]
        )
        # Instance normalisation: a loss must not mix the samples of a batch.
        self.then = nn.ModuleList([ConvUnit(ndim, w, "instance", "leaky_relu") for w in widths])
        self.verdicts = nn.ModuleList([conv(ndim, w, classes, 1) for w in widths])

    def features(self, image: Tensor) -> list[Tensor]:
        """Return features (B, ...) of each resolution, finest first."""
        features, x = [], channels_last(image)
        for first, then in zip(self.first, self.then, strict=True):
            x = then(first(x))
            features.append(x)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, classes, ...) of an image (B, in_channels, ...)."""
        pairs = zip(self.verdicts, self.features(image), strict=True)
        verdicts = [verdict(x) for verdict, x in pairs]
        logits: Tensor = verdicts[0]
        for coarse in verdicts[1:]:
            logits = logits + enlarge(coarse, logits.shape[2:], "trilinear")
        return logits
