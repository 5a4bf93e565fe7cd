"""``cpggan``: a progressive GAN conditioned on the bounding boxes of lesions."""

from pathlib import Path

from gansynth.core.hookspecs import Register, hookimpl, lazily, offer_recipes


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``cpggan``."""
    register("cpggan", lazily("gansynth_cpggan.model:CPGGAN"))


@hookimpl
def register_recipes(register: Register) -> None:
    """Register ``han2019-cpggan``."""
    offer_recipes(register, Path(__file__).parent / "recipes")
