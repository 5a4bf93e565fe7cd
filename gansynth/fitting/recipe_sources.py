"""The further sources that a recipe needs, and the composite runs that learn from them.

Shin et al. 2018 learn tissues of T1 on people without tumours: ``--with tissues=nifti:adni/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import ChainSpec, PartSpec, PerChannel, PerClass, Spec
from gansynth.fitting.recipe import Recipe, RunSpec
from gansynth.runtime.errors import UsageFault, did_you_mean, said_of
from gansynth.sampling.opening import open_source

GRID = ("frame", "whole", "resampling", "size", "spacing")
"""Keys of ``read`` that all sources of a recipe share."""
ASKED = ("fold", "configuration", "plans", "subjects")
"""Keys of ``--with-read`` that are the request's own."""


@dataclass(frozen=True)
class Other:
    """A further source that a recipe needs.

    Attributes:
        data: KIND:WHERE.
        read: how to read it.
        asked: what else the request for it says: its fold (all: nothing of it is held out), ...
        names: its names of channels -> those of the set's own cases.
    """

    data: str
    read: Mapping[str, str]
    asked: Mapping[str, str] = field(default_factory=lambda: {"fold": "all"})
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> SourceRequest:
        """To open it by."""
        return SourceRequest.parse(self.data, read=self.read, **self.asked)


def others_of(
    recipe: Recipe,
    data: Mapping[str, str],
    read: Mapping[str, str],
    common: Mapping[str, str],
    channels: Sequence[str],
) -> dict[str, Other]:
    """The further sources of a recipe, as they were typed.

    Args:
        recipe: says which it needs.
        data: after ``--with``, name -> KIND:WHERE.
        read: after ``--with-read``, NAME.KEY -> value.
        common: how the set's own cases are read; grids are the same for all.
        channels: of the set's own cases.

    Raises:
        UsageFault: one that is missing, or that the recipe does not know.
    """
    needs = recipe.spec.needs
    for option, name in [
        *(("--with", name) for name in data),
        *(("--with-read", key.partition(".")[0]) for key in read),
    ]:
        if name not in needs:
            raise UsageFault(
                f"{option} {name}: recipe {recipe.name} needs no such source, expected one of: "
                f"{', '.join(needs) or 'none'}.{did_you_mean(name, needs)}"
            )
    missing = next((name for name in needs if name not in data), None)
    if missing is not None:
        raise UsageFault(
            f"--recipe {recipe.name}: needs {missing}: {needs[missing]}; name it: --with "
            f"{missing}=KIND:WHERE"
        )
    grid = {key: common[key] for key in GRID if key in common}
    own: dict[str, dict[str, str]] = {name: {} for name in needs}
    for key, value in read.items():
        name, _, rest = key.partition(".")
        own[name][rest] = value
    found = {}
    for name in needs:
        asked = {key: value for key, value in own[name].items() if key in ASKED}
        typed = {key: value for key, value in own[name].items() if key not in ASKED}
        found[name] = Other(data[name], {**grid, **typed}, {"fold": "all", **asked})
    return {name: _with_names(recipe, name, other, channels) for name, other in found.items()}


def _with_names(recipe: Recipe, name: str, other: Other, channels: Sequence[str]) -> Other:
    """A further source with what it calls the channels that the recipe names."""
    if not recipe.spec.channels:
        return other
    with said_of("--read ", f"--with-read {name}."):
        source = open_source(other.request)
    theirs = recipe.called(source.schema.channels, of=other.data)
    ours = recipe.called(channels)
    names = {theirs[name]: ours[name] for name in ours if theirs[name] != ours[name]}
    return replace(other, names=names)


def _with_data(part: PartSpec, others: Mapping[str, Other]) -> PartSpec:
    """A part with the source that it names."""
    name = (part.data or "").removeprefix("{").removesuffix("}")
    if part.data != f"{{{name}}}":
        return part
    other = others[name]
    read = {**part.read, **other.read}
    names = dict(other.names)
    update = {"data": other.data, "read": read, "names": names, **other.asked}
    return part.model_copy(update=update)


def composite_of(
    run: RunSpec, generator: str, edits: Sequence[str] | None, others: Mapping[str, Other]
) -> Spec | None:
    """The composite run that a set is; None for a run of one generator.

    Args:
        run: the set.
        generator: the recipe's.
        edits: of the conditions of its samples.
        others: further sources, by the names that parts call them.
    """
    if run.parts is not None:
        parts = tuple(_with_data(part, others) for part in run.parts)
        return ChainSpec(parts=parts, edits=None if edits is None else tuple(edits))
    if run.per_class is not None:
        return PerClass(generator, run.per_class)
    return None if run.per_channel is None else PerChannel(generator, run.per_channel)
