"""``parametric``: lesions sampled from a model of contrast and grain, a rival of lesion GANs."""

from gansynth.core.hookspecs import Register, hookimpl, lazily


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``parametric``."""
    register("parametric", lazily("gansynth_parametric.model:Parametric"))
