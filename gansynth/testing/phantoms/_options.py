"""Options of phantoms: all numbers that shape them, with units."""

from __future__ import annotations

from dataclasses import dataclass

from gansynth.runtime.errors import UsageFault

CHANNELS = ("T1", "T1c", "T2", "FLAIR")
LABELS = {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}


@dataclass(frozen=True)
class PhantomOptions:
    """Ranges from which each phantom draws. Pairs are `(lowest, highest)`, drawn uniformly.

    Raises:
        UsageFault: a channel is unknown or named twice, or a number is out of its range.
    """

    spacing_mm: float = 2.5  # mm, edge of the isotropic voxels, 1 to 8
    margin_mm: float = 16.0  # mm, empty space kept around the atlas brain on each side
    channels: tuple[str, ...] = CHANNELS  # any of CHANNELS, in the order wanted
    deformation_mm: float = 3.0  # mm, RMS of each displacement component, less if it would fold
    affine_scale: float = 0.06  # fraction, largest change of size along an axis
    affine_shear: float = 0.03  # mm per mm, largest off-diagonal entry (small rotations included)
    affine_shift_mm: float = 3.0  # mm, largest translation along an axis
    noise: float = 0.025  # standard deviation of the Rician noise / channel gain
    bias: float = 0.12  # standard deviation of the log of the bias field
    texture: float = 1.0  # factor on the grain within tissues; 0 switches it off
    radius_mm: tuple[float, float] = (13.0, 23.0)  # mm, core with its rim
    rim_mm: tuple[float, float] = (3.0, 5.5)  # mm, thickness of the enhancing rim
    oedema_mm: tuple[float, float] = (10.0, 24.0)  # mm, reach of the oedema in pure white matter
    mass_effect: tuple[float, float] = (0.2, 0.5)  # fraction, outward push at the centre, below 1
    gain: tuple[float, float] = (300.0, 900.0)  # scanner units per unit of relative signal

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        unknown = [c for c in self.channels if c not in CHANNELS]
        if unknown or not self.channels or len(set(self.channels)) != len(self.channels):
            raise UsageFault(f"channels: {self.channels}; expected distinct names of {CHANNELS}")
        if not 1.0 <= self.spacing_mm <= 8.0:
            raise UsageFault(f"spacing_mm: {self.spacing_mm}; expected 1 to 8 mm")
        for name in ("radius_mm", "rim_mm", "oedema_mm", "mass_effect", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageFault(f"{name}: ({low}, {high}); expected 0 < lowest <= highest")
        if self.mass_effect[1] >= 1.0:
            raise UsageFault(f"mass_effect: {self.mass_effect[1]}; 1 or more would fold the tissue")
        for name in ("margin_mm", "deformation_mm", "affine_shift_mm", "noise", "bias", "texture"):
            if getattr(self, name) < 0:
                raise UsageFault(f"{name}: {getattr(self, name)}; expected 0 or more")
        for name in ("affine_scale", "affine_shear"):
            # The matrix is then diagonally dominant, so it cannot mirror.
            if not 0.0 <= getattr(self, name) <= 0.2:
                raise UsageFault(f"{name}: {getattr(self, name)}; expected 0 to 0.2")
