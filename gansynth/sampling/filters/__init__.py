"""Admission filters, which reject unsuitable samples. One filter per file.

This module is itself a plugin: it registers gansynth's own filters like any third-party plugin.
"""

from gansynth.core.hookspecs import Register, hookimpl, lazily

BUILT_IN: dict[str, str] = {
    "contrast": "ContrastFilter",
    "faithful": "FaithfulFilter",
    "novel": "NovelFilter",
    "range": "RangeFilter",
}
"""Filter name -> class; the module has the filter's name."""


@hookimpl
def register_filters(register: Register) -> None:
    """Register the filters of this folder."""
    for name, class_name in BUILT_IN.items():
        register(name, lazily(f"gansynth.sampling.filters.{name}:{class_name}"))
