"""nnU-Net's plans by its ``PlansManager``, and plans for a small network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from gansynth import DataFault, HostOptions, Needs, UsageFault, read_json, write_json_atomic
from gansynth.runtime.option_kinds import Size

USUAL_CONFIGURATIONS = ("3d_fullres", "2d")
DEFAULT_PLANS, SMALL_PLANS = "nnUNetPlans", "gansynthSmallPlans"
PLAN_AGAIN = "plan again with nnU-Net 2.8 or later: gansynth prepare --force"


class _Configuration(BaseModel):
    data_identifier: Annotated[str, Field(pattern=r"^[^/\\]*[^./\\][^/\\]*$")]  # of a folder
    patch_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=3)]
    batch_size: PositiveInt
    spacing: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=2, max_length=3)]
    architecture: dict[str, Any]


class _Plans(BaseModel):
    plans_name: str
    original_median_spacing_after_transp: Annotated[list[FiniteFloat], Field(min_length=3)]
    configurations: dict[str, dict[str, Any]]


class NnunetPlans:
    """A plans file: its path, and its content."""

    def __init__(self, folder: Path, name: str, typed: str) -> None:
        """Read plans by name from the data set's folder in ``nnUNet_preprocessed``.

        ``typed``: how the data set is named on a command line.
        """
        self.folder, self.path = folder, folder / f"{name}.json"
        if self.path.parent != folder or not self.path.is_file():
            files = folder.glob("*Plans*.json")
            there = sorted(f.stem for f in files if not f.name.startswith("gansynth_"))  # hashes
            if not there:
                raise DataFault(
                    "nnunet.no-plans",
                    f"{folder}: no plans, the data set is not preprocessed; run: gansynth prepare "
                    f"{typed} -c 3d_fullres",
                )
            raise UsageFault(
                "nnunet.plans-name-unknown",
                f"--plans {name!r}: no such plans in {folder}, expected one of: {', '.join(there)}",
            )
        self.doc: Mapping[str, Any] = read_json(self.path, hint=PLAN_AGAIN)
        self._check(_Plans, self.doc, "")

    def _check(self, model: type[BaseModel], doc: Mapping[str, Any], where: str) -> None:
        try:
            model.model_validate(doc)
        except ValidationError as error:
            first = error.errors()[0]
            key = where + ".".join(map(str, first["loc"]))
            what = f"{key} is {first['input']!r:.60}: {first['msg']}"
            raise DataFault(
                "nnunet.plans-value-refused", f"{self.path}: {what}; {PLAN_AGAIN}"
            ) from None

    @cached_property
    def manager(self) -> Any:
        """nnU-Net's own ``PlansManager`` of them."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(dict(self.doc))

    def configuration(self, name: str) -> dict[str, Any]:
        """Return a configuration with inherited values."""
        there = self.doc["configurations"]
        if name not in there:
            raise UsageFault(
                "nnunet.configuration-unknown",
                f"configuration {name!r} is not in {self.path}, expected one of: "
                f"{', '.join(sorted(there))}",
            )
        try:
            found = dict(self.manager.get_configuration(name).configuration)
        except Exception as error:  # nnU-Net has no error classes of its own
            raise DataFault(
                "nnunet.configuration-unreadable",
                f"{self.path}: configurations: {name}: {error!r:.300}; {PLAN_AGAIN}",
            ) from None
        self._check(_Configuration, found, f"configurations: {name}: ")
        return found

    def usual(self, *, prepared: bool) -> str:
        """Return the configuration that is meant where none is named: 3d_fullres, else 2d.

        Pictures and single slices have plans for 2d only. ``prepared``: with preprocessed cases.
        """
        names = [name for name in USUAL_CONFIGURATIONS if name in self.doc["configurations"]] or [
            *USUAL_CONFIGURATIONS
        ]
        there = [name for name in names if prepared and self.data_folder(name).is_dir()]
        return (there or names)[0]

    def data_folder(self, configuration: str) -> Path:
        """Return the folder of a configuration's preprocessed cases."""
        return self.folder / str(self.configuration(configuration)["data_identifier"])


# -- small plans -----------------------------------------------------------------------------------

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
    batch_size: PositiveInt = Field(2, description="cases per batch")
    # The lowest of nnU-Net's deep supervision outputs has weight 0: alone, it gives NaN.
    features: Annotated[tuple[PositiveInt, ...], Field(min_length=3)] = Field(
        (8, 16, 32, 32), description="feature channels per stage, at least three stages"
    )
    convolutions: PositiveInt | None = Field(None, description="of each stage, at most")
    plans_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] = Field(
        SMALL_PLANS, description="of these plans, for --plans later on"
    )


def write_small_plans(
    plans: NnunetPlans, small: PrepareSettings, configurations: Sequence[str]
) -> Path:
    """Write plans for a small network beside nnU-Net's; nothing is preprocessed again.

    Existing configurations of the small plans stay. Returns the file.
    """
    path = plans.path.with_name(f"{small.plans_name}.json")
    if path == plans.path:
        raise UsageFault(
            "nnunet.small-plans-name-taken",
            f"small plans: name {small.plans_name!r} is that of nnU-Net's plans; choose another",
        )
    before = read_json(path).get("configurations") if path.is_file() else {}
    made = {name: shrink(plans.configuration(name), small) for name in configurations}
    doc = dict(plans.doc, plans_name=small.plans_name)
    doc["configurations"] = dict(before or {}) | made
    write_json_atomic(path, doc)
    return path


def shrink(configuration: Mapping[str, Any], small: PrepareSettings) -> dict[str, Any]:
    """Return a configuration with a smaller patch and network, its ``data_identifier`` kept."""
    doc = deepcopy(dict(configuration))
    doc.pop("next_stage", None)
    patch = _patch([int(n) for n in doc["patch_size"]], small)
    doc.update(patch_size=patch, batch_size=small.batch_size)
    arch = doc["architecture"]["arch_kwargs"]
    stages = min(len(small.features), len(arch["strides"]))
    arch.update(
        n_stages=stages,
        features_per_stage=list(small.features[:stages]),
        kernel_sizes=arch["kernel_sizes"][:stages],
        strides=_strides(arch["strides"][:stages], patch),
    )
    for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if key in arch:
            count = stages - key.endswith("decoder")
            arch[key] = [min(n, small.convolutions or n) for n in arch[key][:count]]
    return doc


def _patch(patch: Sequence[int], small: PrepareSettings) -> list[int]:
    """Return the requested patch, clipped; else a small one in the shape of nnU-Net's own."""
    if small.patch is not None:
        if len(small.patch) != len(patch):
            raise UsageFault(
                "nnunet.small-plans-patch-unfit",
                f"small plans: patch size is {small.patch}, expected {len(patch)} positive "
                f"numbers of voxels, at most {tuple(patch)}",
            )
        return [min(a, b) for a, b in zip(small.patch, patch, strict=True)]
    ratio = min(1.0, (SMALL_VOXELS[len(patch)] / prod(patch)) ** (1 / len(patch)))
    return [
        n if n < 8 else min(max(8, round(n * ratio / 8) * 8), SMALL_EDGE, n // 8 * 8) for n in patch
    ]


def _strides(strides: Sequence[Sequence[int]], patch: Sequence[int]) -> list[list[int]]:
    """Return nnU-Net's strides, without those that do not divide the smaller patch."""
    left, limited = list(patch), []
    for stage in strides:
        pairs = list(zip(stage, left, strict=True))
        fits = [n % stride == 0 and n // stride >= SMALLEST_FEATURE_EDGE for stride, n in pairs]
        row = [int(stride) if fit else 1 for (stride, _), fit in zip(pairs, fits, strict=True)]
        left = [n // stride for n, stride in zip(left, row, strict=True)]
        limited.append(row)
    return limited
