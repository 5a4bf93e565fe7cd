"""What is registered, by whom, and what of it does not load."""

from __future__ import annotations

from typing import Any

from gansynth.core.hookspecs import API_VERSION
from gansynth.core.registry import Registry
from gansynth.fitting.recipe import find_recipe, read_recipe
from gansynth.runtime.errors import GansynthError


def inventory(registry: Registry) -> dict[str, Any]:
    """Names by kind with the plugin that offers them, what is broken, whence each came, as JSON."""
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
    """What each recipe is; those that cannot be read are left out, as ``unusable`` says."""
    found: dict[str, dict[str, Any]] = {}
    for name in registry.names("recipes"):
        try:
            spec = read_recipe(registry.load("recipes", name), name).spec
        except GansynthError:
            continue
        found[name] = {
            "summary": spec.summary,
            "paper": spec.paper,
            "generator": spec.generator,
            "sets": [run.name for run in spec.runs],
            "scales": list(spec.scale),
        }
    return found


def unusable(registry: Registry) -> dict[str, dict[str, str]]:
    """Kind -> name -> why it does not load, of everything registered."""
    found: dict[str, dict[str, str]] = {}
    for kind in registry.loaders:
        for name in registry.names(kind):
            try:
                find_recipe(name) if kind == "recipes" else registry.load(kind, name)
            except GansynthError as error:
                found.setdefault(kind, {})[name] = " ".join(str(error).split())
    return found
