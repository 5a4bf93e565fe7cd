"""Saving figures: PNG, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, *, pad: float = 1.08) -> Path:
    """Publish a figure as PNG, making its folder if there is none.

    Args:
        figure: laid out tightly before it is drawn.
        path: where to write.
        pad: room around the panels, in font sizes.

    Raises:
        EnvironmentFault: the disk refuses; a former picture stays.
    """
    figure.tight_layout(pad=pad)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, image.getvalue())
    return path
