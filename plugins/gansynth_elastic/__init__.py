"""``elastic``: real cases, image and labels deformed together, the control of every GAN."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``elastic``."""
    register("elastic", lazily("gansynth_elastic.model:ElasticGenerator"))


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``elastic``."""
    offer_files(register, Path(__file__).parent / "arms")
