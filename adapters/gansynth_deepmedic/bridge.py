"""Replacements for functions of DeepMedic 0.8 that newer numpy and nibabel lack.

DeepMedic was written for numpy 1 and nibabel 4, and runs there without changes. The function
``np.lib.pad`` is missing in numpy 2. The method ``get_data`` is missing in nibabel 5. By default
nibabel 5 also refuses 64-bit integers, the type of segmentations by ``argmax``.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

NIBABEL = 5  # first release of nibabel without the functions that DeepMedic calls


def bridge() -> tuple[str, ...]:
    """Install missing functions, and return their names.

    Call it before the checkout's modules that import them by name.
    """
    bridged = []
    if not hasattr(np.lib, "pad"):
        np.lib.pad = np.pad  # type: ignore[attr-defined]
        bridged.append("np.lib.pad")
    nibabel = import_module("nibabel")
    if int(re.findall(r"\d+", nibabel.__version__)[0]) >= NIBABEL:
        bridged += ["load_volume", "saveImgToNiiWithOriginalHdr"]
        files = import_module("deepmedic.dataManagement.io")
        files.load_volume = load_volume  # type: ignore[attr-defined]
        # Imported by name there.
        sampling = import_module("deepmedic.dataManagement.sampling")
        sampling.load_volume = load_volume  # type: ignore[attr-defined]
        files.saveImgToNiiWithOriginalHdr = _saving(  # type: ignore[attr-defined]
            files.saveImgToNiiWithOriginalHdr
        )
    return tuple(bridged)


def load_volume(filepath: str) -> npt.NDArray[Any]:
    """Load a volume (X, Y, Z), scaled by its header, in its stored type.

    Raises:
        ValueError: it holds more than one volume.
    """
    image = import_module("nibabel").load(filepath)
    array: npt.NDArray[Any] = np.asanyarray(image.dataobj)
    if array.ndim == 2:
        return array[..., np.newaxis]
    if array.ndim > 3:
        if any(n != 1 for n in array.shape[3:]):
            raise ValueError(f"{filepath}: shape {array.shape}, expected one volume of three axes")
        return array.reshape(array.shape[:3])
    return array


def _saving(original: Any) -> Any:
    """Wrap DeepMedic's function that writes a volume, for types that nibabel 5 writes."""

    def save(image: npt.NDArray[Any], *arguments: Any, **named: Any) -> Any:
        if image.dtype in (np.int64, np.uint64, np.bool_):
            image = image.astype(np.int32)
        return original(image, *arguments, **named)

    return save
