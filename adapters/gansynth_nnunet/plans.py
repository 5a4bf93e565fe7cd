"""nnU-Net's plans file: reading, resolving a configuration, finding its data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from gansynth.core.adapter import HostOptions
from gansynth.fitting.composite_spec import first_fault
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.option_kinds import Size
from gansynth.runtime.options import Needs

USUAL = ("3d_fullres", "2d")
DEFAULT_PLANS = "nnUNetPlans"


class _Configuration(BaseModel):
    """What is read of a configuration."""

    data_identifier: str
    patch_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=3)]
    batch_size: PositiveInt
    spacing: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=2, max_length=3)]
    architecture: dict[str, Any]


@dataclass(frozen=True)
class NnunetPlans:
    """A plans file, and its content."""

    path: Path
    doc: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str) -> NnunetPlans:
        """Read plans by name from the data set's folder in ``nnUNet_preprocessed``."""
        path = folder / f"{name}.json"
        if path.parent != folder or not path.is_file():
            there = sorted(p.stem for p in folder.glob("*.json") if _is_plans(p))
            if not there:
                raise DataFault(
                    f"{folder}: no plans, the data set is not preprocessed; run: gansynth prepare "
                    f"nnunet:{folder.name[7:10]} -c 3d_fullres"
                )
            raise UsageFault(
                f"--plans {name!r}: no such plans in {folder}, expected one of: {', '.join(there)}"
            )
        doc = read_json(path, hint="plan again with: gansynth prepare --force")
        if not isinstance(doc.get("configurations"), dict):
            raise DataFault(f"{path}: configurations is missing, expected nnU-Net v2 plans")
        return cls(path, doc)

    @property
    def folder(self) -> Path:
        """The data set's folder in ``nnUNet_preprocessed``."""
        return self.path.parent

    @property
    def slice_distance(self) -> float:
        """Median distance of slices in the data set, mm."""
        key = "original_median_spacing_after_transp"
        try:
            return float(self.doc[key][0])
        except (LookupError, TypeError, ValueError):
            raise DataFault(
                f"{self.path}: {key} is {self.doc.get(key)!r:.80}, expected mm per axis; repair it"
            ) from None

    def configuration(self, name: str) -> dict[str, Any]:
        """Return a configuration with inherited values."""
        config = self._resolve(name, ())
        missing = [key for key in _Configuration.model_fields if key not in config]
        if missing:
            raise DataFault(
                f"{self.path}: configurations: {name} lacks {', '.join(missing)}; plan again with "
                "nnU-Net 2.8 or later: gansynth prepare --force"
            )
        try:
            _Configuration.model_validate(config)
        except ValidationError as error:
            raise DataFault(
                f"{self.path}: configurations: {name}: {first_fault(error)}; plan again with: "
                "gansynth prepare --force"
            ) from None
        return config

    def usual(self, *, prepared: bool) -> str:
        """Return the configuration that is meant where none is named: 3d_fullres, else 2d.

        Pictures and single slices have plans for 2d only. ``prepared``: with preprocessed cases.
        """
        names = [name for name in USUAL if name in self.doc["configurations"]] or [*USUAL]
        there = [name for name in names if prepared and self.data_folder(name).is_dir()]
        return (there or names)[0]

    def _resolve(self, name: str, visited: tuple[str, ...]) -> dict[str, Any]:
        configurations = self.doc["configurations"]
        if not isinstance(name, str) or name not in configurations:
            raise UsageFault(
                f"configuration {name!r} is not in {self.path}, expected one of: "
                f"{', '.join(sorted(configurations))}"
            )
        if name in visited:
            raise DataFault(f"{self.path}: configurations: {name} inherits from itself; repair it")
        config = configurations[name]
        if not isinstance(config, dict):
            raise DataFault(f"{self.path}: configurations: {name} is {config!r:.80}; repair it")
        parent = config.get("inherits_from")
        return {**self._resolve(parent, (*visited, name)), **config} if parent else config

    def data_folder(self, configuration: str) -> Path:
        """Return the folder of a configuration's preprocessed cases."""
        name = str(self.configuration(configuration)["data_identifier"])
        folder = self.folder / name
        if folder.parent != self.folder or name in ("", ".", ".."):
            raise IntegrityFault(
                f"{self.path}: configurations: {configuration}: data_identifier is {name!r}, "
                "expected a folder's name without a path"
            )
        return folder


def _is_plans(path: Path) -> bool:
    try:
        return "plans_name" in read_json(path)
    except DataFault:
        return False


SMALL_EDGE = 48  # largest edge of an automatic small patch, in voxels
SMALL_VOXELS = {2: 48**2, 3: 32**3}
"""Approximate voxels of an automatic small patch, by number of axes."""
SMALLEST_FEATURE_EDGE = 4  # least voxels of an axis that nnU-Net still pools


class PrepareSettings(HostOptions):
    """``gansynth prepare nnunet:ID --set``: options of the fingerprint and of small plans."""

    needs: ClassVar[Needs] = dict.fromkeys(
        ("patch", "batch_size", "features", "convolutions", "plans_name"), "small"
    )

    voxels: PositiveInt | None = Field(
        None, description="that nnU-Net's fingerprint samples in all (nnU-Net: 100 million)"
    )
    small: bool = Field(False, description="also write plans for a small network: CPUs, trials")
    patch: Size | None = Field(None, description="voxels of its patch")
    batch_size: PositiveInt | None = Field(None, description="cases per batch")
    features: tuple[PositiveInt, ...] | None = Field(
        None, description="feature channels per stage", examples=["8,16,32,32"]
    )
    convolutions: PositiveInt | None = Field(None, description="of each stage, at most")
    plans_name: str | None = Field(None, description="of these plans, for --plans later on")

    @property
    def name(self) -> str:
        """Name of the small plans."""
        return "gansynthSmallPlans" if self.plans_name is None else self.plans_name

    def check_small(self) -> None:
        """Reject small plans that nnU-Net could not train with (UsageFault)."""
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UsageFault(
                f"small plans: name is {self.name!r}, expected letters, digits and '_', for "
                "example gansynthSmallPlans"
            )
        if self.features and len(self.features) < 3:
            # The lowest of nnU-Net's deep supervision outputs has weight 0: alone, it gives NaN.
            raise UsageFault(
                f"small plans: features {self.features} make {len(self.features)} stages, expected "
                "at least three: with fewer, nnU-Net's deep supervision has no output left"
            )


def write_small_plans(
    plans_json: Path, small: PrepareSettings, configurations: Sequence[str]
) -> Path:
    """Write plans for a small network beside nnU-Net's; nothing is preprocessed again.

    Existing configurations of the small plans stay. Returns the file.
    """
    plans = NnunetPlans.read(plans_json.parent, plans_json.stem)
    if small.name == plans_json.stem:
        raise UsageFault(
            f"small plans: name {small.name!r} is that of nnU-Net's plans; choose another"
        )
    path = plans_json.with_name(f"{small.name}.json")
    doc: dict[str, Any] = {**deepcopy(dict(plans.doc)), "plans_name": small.name}
    previous = read_json(path).get("configurations") if path.is_file() else {}
    doc["configurations"] = dict(previous) if isinstance(previous, dict) else {}
    for name in configurations:
        doc["configurations"][name] = _shrink(plans.configuration(name), small)
    write_json_atomic(path, doc)
    return path


def _shrink(configuration: Mapping[str, Any], small: PrepareSettings) -> dict[str, Any]:
    """Return a configuration with a smaller patch and network, its ``data_identifier`` kept."""
    doc = deepcopy(dict(configuration))
    full_patch = [int(n) for n in doc["patch_size"]]
    patch, features = _patch(full_patch, small), small.features or (8, 16, 32, 32)
    arch = doc["architecture"]["arch_kwargs"]
    stages = min(len(features), len(arch["strides"]))
    convs = "n_conv_per_stage" if "n_conv_per_stage" in arch else "n_blocks_per_stage"
    arch.update(
        n_stages=stages,
        features_per_stage=list(features[:stages]),
        kernel_sizes=arch["kernel_sizes"][:stages],
        strides=_strides(arch["strides"][:stages], patch),
        n_conv_per_stage_decoder=_most(arch["n_conv_per_stage_decoder"][: stages - 1], small),
        **{convs: _most(arch[convs][:stages], small)},
    )
    doc.update(patch_size=patch, batch_size=small.batch_size or 2)
    doc.pop("next_stage", None)
    return doc


def _most(convolutions: Sequence[int], small: PrepareSettings) -> list[int]:
    """Limit the convolutions of each stage."""
    return [min(n, small.convolutions or n) for n in convolutions]


def _patch(patch: Sequence[int], small: PrepareSettings) -> list[int]:
    """Return the requested patch, clipped; else a small one in the shape of nnU-Net's own."""
    if small.patch is not None:
        if len(small.patch) != len(patch):
            raise UsageFault(
                f"small plans: patch size is {small.patch}, expected {len(patch)} positive "
                f"numbers of voxels, at most {tuple(patch)}"
            )
        return [min(a, b) for a, b in zip(small.patch, patch, strict=True)]
    shrink = min(1.0, (SMALL_VOXELS[len(patch)] / prod(patch)) ** (1 / len(patch)))
    return [
        n if n < 8 else min(max(8, round(n * shrink / 8) * 8), SMALL_EDGE, n // 8 * 8)
        for n in patch
    ]


def _strides(strides: Sequence[Sequence[int]], patch: Sequence[int]) -> list[list[int]]:
    """Return nnU-Net's strides, without those that do not divide the smaller patch."""
    left, limited = list(patch), []
    for stage in strides:
        row = []
        for axis, stride in enumerate(stage):
            fits = left[axis] % stride == 0 and left[axis] // stride >= SMALLEST_FEATURE_EDGE
            row.append(int(stride) if fits or stride == 1 else 1)
            left[axis] //= row[-1]
        limited.append(row)
    return limited
