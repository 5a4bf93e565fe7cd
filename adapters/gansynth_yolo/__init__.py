"""YOLO detectors: a source for their data sets, and synthetic images with boxes for their training.

The installed detectors are not modified. Heavy packages are imported on use.
"""

from gansynth import Register, RegisterCommand, hookimpl, lazily


@hookimpl
def register_sources(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.source:open_yolo"))
    register("coco", lazily("gansynth_yolo.coco:open_coco"))


@hookimpl
def register_checks(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.source:check_yolo"))
    register("coco", lazily("gansynth_yolo.coco:check_coco"))


@hookimpl
def register_writers(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.writer:YoloWriter"))


@hookimpl
def register_hosts(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.adapter:YoloAdapter"))


@hookimpl
def register_trials(register: Register) -> None:
    register("yolo", lazily("gansynth_yolo.trials:YoloTrials"))


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    register("import", "yolo", lazily("gansynth_yolo.import_slices:import_slices"))
    register("doctor", "yolo", lazily("gansynth_yolo.detectors:doctor_lines"))
