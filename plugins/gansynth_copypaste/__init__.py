"""``copypaste``: real lesions pasted into real images, the baseline of every lesion GAN."""

from gansynth.core.hookspecs import Register, hookimpl, lazily


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``copypaste``."""
    register("copypaste", lazily("gansynth_copypaste.model:CopyPaste"))
