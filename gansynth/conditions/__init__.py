"""Conditions: label maps, boxes and lesions that a generator draws images for.

This module is itself a plugin: it registers the edits of gansynth as any other plugin would.
"""

from gansynth.core.hookspecs import Register, hookimpl, lazily

BUILT_IN = {
    "identity": ("affine", "Identity"),
    "elastic": ("elastic", "ElasticEdit"),
    "flip": ("affine", "Flip"),
    "rotate": ("affine", "Rotate"),
    "scale": ("affine", "ScaleEdit"),
    "shift": ("affine", "Shift"),
    "enlarge": ("morphology", "Enlarge"),
    "shrink": ("morphology", "Shrink"),
    "components": ("components", "Components"),
    "drop": ("drop", "Drop"),
    "clip": ("clip", "Clip"),
    "transplant": ("transplant", "Transplant"),
    "interpolate": ("interpolate", "Interpolate"),
    "merge": ("merge", "Merge"),
    "place": ("place", "PlaceEdit"),
    "size": ("size", "Size"),
    "blob": ("blob", "Blob"),
}
"""Edit name -> module below ``edits`` and class."""


@hookimpl
def register_edits(register: Register) -> None:
    """Register the edits of this folder."""
    for name, (module, class_name) in BUILT_IN.items():
        register(name, lazily(f"gansynth.conditions.edits.{module}:{class_name}"))
