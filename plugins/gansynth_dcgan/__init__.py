"""``dcgan``: unconditional GANs (DCGAN, WGAN and WGAN-GP), and recipes of papers for it."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``dcgan``."""
    register("dcgan", lazily("gansynth_dcgan.model:DCGAN"))


@hookimpl
def register_recipes(register: Register) -> None:
    """Register ``han2018-dcgan`` and ``han2018-wgan``."""
    offer_files(register, Path(__file__).parent / "recipes")


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``dcgan``."""
    offer_files(register, Path(__file__).parent / "arms")
