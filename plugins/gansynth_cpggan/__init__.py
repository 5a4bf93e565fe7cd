"""``cpggan``: a progressive GAN conditioned on the bounding boxes of lesions."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``cpggan``."""
    register("cpggan", lazily("gansynth_cpggan.model:CPGGAN"))


@hookimpl
def register_recipes(register: Register) -> None:
    """Register ``han2019-cpggan``."""
    offer_files(register, Path(__file__).parent / "recipes")


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``cpggan``."""
    offer_files(register, Path(__file__).parent / "arms")
