"""nnU-Net's plans by its ``PlansManager``, and plans for a small network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from gansynth import (
    DataFault,
    Finding,
    GansynthError,
    HostOptions,
    Needs,
    PrepareRequest,
    SourceRequest,
    UsageFault,
    read_json,
    write_json_atomic,
)
from gansynth.runtime.option_kinds import Size
from gansynth_nnunet.dataset import NnunetRoot

USUAL_CONFIGURATIONS = ("3d_fullres", "2d")
OLD = "was preprocessed by an nnU-Net before 2.6 (*.npz), expected *.b2nd"
RESENC = ("M", "L", "XL")
DEFAULT_PLANS, SMALL_PLANS = "nnUNetPlans", "gansynthSmallPlans"
PLANNERS = {f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in RESENC}
"""Plans of nnU-Net's residual encoders -> the planner that makes them."""


def plans_in(folder: Path) -> list[str]:
    """Return the names of all plans in a data set's folder in ``nnUNet_preprocessed``, sorted."""
    files = folder.glob("*Plans*.json")
    return sorted(f.stem for f in files if not f.name.startswith("gansynth_"))  # those of hashes


def planning(dataset: str, request: SourceRequest, **fields: bool) -> str:
    """Return the command that makes the plans of a request; ``fields``: of the preparation."""
    if request.plans in (None, DEFAULT_PLANS, *PLANNERS):
        return request.command(PrepareRequest, **fields)
    if request.plans == SMALL_PLANS:
        own = replace(request, plans=None)
        return own.command(PrepareRequest, set={"small": "yes"}, **fields)
    return f"nnUNetv2_plan_experiment -d {int(dataset[7:10])} -overwrite_plans_name {request.plans}"


def preparing(root: NnunetRoot, dataset: str, folder: Path) -> str:
    """Return the command that makes a folder of preprocessed cases again."""
    request = root.request(dataset)
    names = [name for name in plans_in(folder.parent) if name != DEFAULT_PLANS]
    for name in (DEFAULT_PLANS, *names):
        plans = None if name == DEFAULT_PLANS else name
        with suppress(GansynthError):  # which the check of the plans says
            known = NnunetPlans(folder.parent, replace(request, plans=name)).doc["configurations"]
            for each, values in known.items():
                if values.get("data_identifier") == folder.name:
                    asked = replace(request, plans=plans, configuration=each)
                    return asked.command(PrepareRequest, force=True)
    return request.command(PrepareRequest, force=True)


def check_plans(root: NnunetRoot, dataset: str) -> Iterator[Finding]:
    """Warn of plans that no fit takes, and of cases that only an older nnU-Net reads."""
    folder = root.preprocessed / dataset
    for name in plans_in(folder):
        try:
            NnunetPlans(folder, replace(root.request(dataset), plans=name))
        except GansynthError as fault:
            yield Finding("warning", None, folder / f"{name}.json", str(fault))
    for place in sorted({file.parent for file in folder.glob("*/*.npz")}):
        if next(place.glob("*.b2nd"), None) is None:
            text = f"{place}: {OLD}; preprocess again: {preparing(root, dataset, place)}"
            yield Finding("warning", None, place, text)


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
    """A plans file: its path, and its content.

    Attributes:
        request: the data set, with the name of the plans unless that is nnU-Net's default.
    """

    def __init__(self, folder: Path, request: SourceRequest) -> None:
        """Read the plans of a request from the data set's folder in ``nnUNet_preprocessed``.

        Where it names none, they are nnU-Net's default or, without these, the only ones there are.
        """
        names = plans_in(folder)
        if request.plans is None and DEFAULT_PLANS not in names and len(names) == 1:
            request = replace(request, plans=names[0])
        name = request.plans or DEFAULT_PLANS
        self.folder, self.path, self.request = folder, folder / f"{name}.json", request
        if name not in names:
            prepare = planning(folder.name, request)
            if not names:
                raise DataFault(
                    "nnunet.no-plans",
                    f"{folder}: no plans, the data set is not preprocessed; run: {prepare}",
                )
            raise UsageFault(
                "nnunet.plans-name-unknown",
                f"--plans {name}: no such plans in {folder}, expected one of: "
                f"{', '.join(names)}; or make them: {prepare}",
            )
        again = planning(folder.name, request, force=True)
        self._again = f"plan again with nnU-Net 2.8 or later: {again}"
        self.doc: Mapping[str, Any] = read_json(self.path, hint=self._again)
        self._check(_Plans, self.doc, "")
        if self.doc["plans_name"] != name:
            raise DataFault(
                "nnunet.plans-name-of-other",
                f"{self.path}: plans_name is {self.doc['plans_name']!r}, expected {name!r}, as the "
                "file is called: nnU-Net would take its results for those of the other plans; "
                "correct it, or name the file as it says",
            )

    def _check(self, model: type[BaseModel], doc: Mapping[str, Any], where: str) -> None:
        try:
            model.model_validate(doc)
        except ValidationError as error:
            first = error.errors()[0]
            key = where + ".".join(map(str, first["loc"]))
            what = f"{key} is {first['input']!r:.60}: {first['msg']}"
            raise DataFault(
                "nnunet.plans-value-refused", f"{self.path}: {what}; {self._again}"
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
                f"{self.path}: configurations: {name}: {error!r:.300}; {self._again}",
            ) from None
        self._check(_Configuration, found, f"configurations: {name}: ")
        return found

    def usual(self, *, prepared: bool) -> str:
        """Return the configuration that is meant where none is named: 3d_fullres, else 2d.

        Pictures and single slices have plans for 2d only. ``prepared``: with preprocessed cases.
        """
        known = self.doc["configurations"]
        names = [name for name in USUAL_CONFIGURATIONS if name in known] or [*USUAL_CONFIGURATIONS]
        others = [name for name in known if "previous_stage" not in known[name]]
        there = [
            name
            for name in dict.fromkeys((*names, *others))
            if prepared and name in known and self.data_folder(name).is_dir()
        ]
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
    before: Mapping[str, Any] = {}
    with suppress(DataFault):  # none yet, or damaged ones
        before = read_json(path).get("configurations") or {}
    made = {name: shrink(plans.configuration(name), small) for name in configurations}
    doc = dict(plans.doc, plans_name=small.plans_name)
    doc["configurations"] = {**before, **made}
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
