"""3D conditional GANs as gansynth generators: ``cgan3d``, and a recipe for it: ``lesion``."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``cgan3d``."""
    register("cgan3d", lazily("gansynth_cgan3d.model:CGAN3D"))


@hookimpl
def register_recipes(register: Register) -> None:
    """Register ``lesion`` (lesions in context) and the recipes of papers."""
    offer_files(register, Path(__file__).parent / "recipes")


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with ``cgan3d``."""
    offer_files(register, Path(__file__).parent / "arms")
