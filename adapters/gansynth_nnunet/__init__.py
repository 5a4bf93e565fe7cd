"""nnU-Net v2: reads its preprocessed training cases, and adds synthetic samples to its training.

nnU-Net's installation is not changed. Heavy modules are imported at their first use.
"""

from gansynth import Register, RegisterCommand, hookimpl, lazily


@hookimpl
def register_sources(register: Register) -> None:
    register("nnunet", lazily("gansynth_nnunet.source:NnunetSource"))
    register("nnunet-raw", lazily("gansynth_nnunet.raw:open_raw"))


@hookimpl
def register_checks(register: Register) -> None:
    register("nnunet", lazily("gansynth_nnunet.raw:check_nnunet"))
    register("nnunet-raw", lazily("gansynth_nnunet.raw:check_nnunet"))


@hookimpl
def register_writers(register: Register) -> None:
    register("nnunet-raw", lazily("gansynth_nnunet.raw:SampleWriter"))


@hookimpl
def register_hosts(register: Register) -> None:
    register("nnunet", lazily("gansynth_nnunet.adapter:NnunetAdapter"))


@hookimpl
def register_trials(register: Register) -> None:
    register("nnunet", lazily("gansynth_nnunet.trials:NnunetTrials"))


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    register("import", "nnunet", lazily("gansynth_nnunet.importing:import_raw"))
    register("prepare", "nnunet", lazily("gansynth_nnunet.prepare:prepare"))
    register("splits", "nnunet", lazily("gansynth_nnunet.dataset:make_splits"))
    register("doctor", "nnunet", lazily("gansynth_nnunet.doctor:lines"))
