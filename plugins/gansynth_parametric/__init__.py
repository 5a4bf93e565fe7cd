"""``parametric``: lesions sampled from a model of contrast and grain, a rival of lesion GANs."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``parametric``."""
    register("parametric", lazily("gansynth_parametric.model:Parametric"))


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``parametric``."""
    offer_files(register, Path(__file__).parent / "arms")
