"""``copypaste``: real lesions pasted into real images, the baseline of every lesion GAN."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``copypaste``."""
    register("copypaste", lazily("gansynth_copypaste.model:CopyPaste"))


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``copypaste``."""
    offer_files(register, Path(__file__).parent / "arms")
