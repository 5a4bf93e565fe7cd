"""Conditions: label maps, boxes and lesions that a generator draws images for.

This module is itself a plugin: it registers the edits of gansynth as any other plugin would.
"""

from gansynth.core.hookspecs import Register, hookimpl, lazily

BUILT_IN = {
    "identity": ("warps", "Identity"),
    "elastic": ("warps", "ElasticEdit"),
    "flip": ("warps", "Flip"),
    "rotate": ("warps", "Rotate"),
    "scale": ("warps", "ScaleEdit"),
    "shift": ("warps", "Shift"),
    "enlarge": ("morphology", "Enlarge"),
    "shrink": ("morphology", "Shrink"),
    "clip": ("clip", "Clip"),
    "transplant": ("donors", "Transplant"),
    "interpolate": ("donors", "Interpolate"),
    "size": ("lesions", "Size"),
    "blob": ("lesions", "Blob"),
}
"""Edit name -> module below ``edits`` and class."""


@hookimpl
def register_edits(register: Register) -> None:
    """Register the edits of this folder."""
    for name, (module, class_name) in BUILT_IN.items():
        register(name, lazily(f"gansynth.conditions.edits.{module}:{class_name}"))
