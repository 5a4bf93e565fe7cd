"""``elastic``: real cases, image and labels deformed together, the control of every GAN."""

from gansynth.core.hookspecs import Register, hookimpl, lazily


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``elastic``."""
    register("elastic", lazily("gansynth_elastic.model:ElasticGenerator"))
