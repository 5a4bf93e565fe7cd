"""DeepMedic: a source for its configuration files, and synthetic cases for its training.

The process of the real program imports ``hook`` and ``insertion``, which need numpy only. It does
not import this module.
"""

from gansynth import Register, RegisterCommand, hookimpl, lazily


@hookimpl
def register_sources(register: Register) -> None:
    register("deepmedic", lazily("gansynth_deepmedic.source:open_deepmedic"))


@hookimpl
def register_checks(register: Register) -> None:
    register("deepmedic", lazily("gansynth_deepmedic.check:check_deepmedic"))


@hookimpl
def register_writers(register: Register) -> None:
    register("deepmedic", lazily("gansynth_deepmedic.writer:DeepMedicWriter"))


@hookimpl
def register_hosts(register: Register) -> None:
    register("deepmedic", lazily("gansynth_deepmedic.adapter:DeepMedicAdapter"))


@hookimpl
def register_trials(register: Register) -> None:
    register("deepmedic", lazily("gansynth_deepmedic.trials:DeepMedicTrials"))


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    register("doctor", "deepmedic", lazily("gansynth_deepmedic.program:doctor_lines"))
