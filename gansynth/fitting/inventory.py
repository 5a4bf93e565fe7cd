"""Registered plugins by kind, and those that do not load."""

from __future__ import annotations

from typing import Any

from gansynth.core.hookspecs import API_VERSION
from gansynth.core.registry import Registry
from gansynth.fitting.recipe import find_recipe, read_recipe
from gansynth.runtime.errors import GansynthError


def inventory(registry: Registry) -> dict[str, Any]:
    """Return names by kind with their plugins, broken plugins and distributions, as JSON."""
    names = dict.fromkeys([*registry.plugins, *registry.broken])
    origins = {name: registry.origins.get(name) for name in names}
    return {
        "api": API_VERSION,
        "found": {
            kind: {name: registry.loaders[kind][name][0] for name in registry.names(kind)}
            for kind in registry.loaders
        },
        "recipes": recipes(registry),
        "broken": dict(registry.broken),
        "plugins": {
            name: {
                "distribution": None if origin is None else origin.distribution,
                "version": None if origin is None else origin.version,
                "offers": registry.offers(name),
            }
            for name, origin in origins.items()
        },
    }


def recipes(registry: Registry) -> dict[str, dict[str, Any]]:
    """Return a summary of each readable recipe; ``unusable`` lists the others."""
    documents: dict[str, dict[str, Any]] = {}
    for name in registry.names("recipes"):
        try:
            spec = read_recipe(registry.load("recipes", name), name).spec
        except GansynthError:
            continue
        documents[name] = {
            "summary": spec.summary,
            "paper": spec.paper,
            "generator": spec.generator,
            "sets": [run.name for run in spec.runs],
            "scales": list(spec.scale),
        }
    return documents


def unusable(registry: Registry) -> dict[str, dict[str, str]]:
    """Return kind -> name -> reason, for everything registered that does not load."""
    reasons: dict[str, dict[str, str]] = {}
    for kind in registry.loaders:
        for name in registry.names(kind):
            try:
                find_recipe(name) if kind == "recipes" else registry.load(kind, name)
            except GansynthError as error:
                reasons.setdefault(kind, {})[name] = " ".join(str(error).split())
    return reasons
