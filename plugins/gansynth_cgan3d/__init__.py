"""Conditional GANs as gansynth generators: ``cgan3d``, ``cgan3d-lesion``, ``cgan3d-labels``."""

from pathlib import Path

from gansynth import Register, hookimpl, lazily, offer_files


@hookimpl
def register_generators(register: Register) -> None:
    """Register whole images from label maps, lesions in real images, label maps from images."""
    register("cgan3d", lazily("gansynth_cgan3d.whole:CGAN3D"))
    register("cgan3d-lesion", lazily("gansynth_cgan3d.lesion:CGAN3DLesion"))
    register("cgan3d-labels", lazily("gansynth_cgan3d.labels:CGAN3DLabels"))


@hookimpl
def register_recipes(register: Register) -> None:
    """Register the recipes of papers."""
    offer_files(register, Path(__file__).parent / "recipes")


@hookimpl
def register_arms(register: Register) -> None:
    """Register experiment arms with these generators."""
    offer_files(register, Path(__file__).parent / "arms")
