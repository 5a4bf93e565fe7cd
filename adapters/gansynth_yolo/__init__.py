"""YOLO detectors: a source for their data sets, and synthetic images with boxes for their training.

The installed detectors are not modified. Heavy packages are imported on use.
"""

from gansynth.core.hookspecs import Register, hookimpl, lazily


@hookimpl
def register_sources(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.source:open_yolo"))


@hookimpl
def register_checks(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.check:check_yolo"))


@hookimpl
def register_adapters(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.adapter:YoloAdapter"))
