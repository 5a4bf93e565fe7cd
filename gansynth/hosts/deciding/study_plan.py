"""The text of a first plan of ``gansynth benchmark``, sized by the subjects of a data set."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gansynth.core.source import CaseSource, SourceRequest
from gansynth.hosts.deciding.trials import trials_of
from gansynth.metrics.segmentation.measures import DICE_AT_ALARMS
from gansynth.runtime.version import build

STEPS, DRAWS, SEEDS = 1000, 3, 2  # of a plan whose time nobody has said
FEWEST_SUBJECTS = 6  # subjects: two to develop with, two sealed, two to train on
HEAD = """\
# A plan of gansynth benchmark. What is not required may be left out; more keys:
# gansynth help benchmark_plan keys. All arms train for as many steps: give as
# many as yours takes. Sealed subjects are evaluated once, by --test-set.
"""
COMMENTS = {
    "name": "required",
    "data": "required",
    "subjects": "default: every case is one",
    "host": "required, with both of these",
    "generators": "options as of gansynth fit",
    "arms": "required; options of gansynth augment",
    "- default": "the control: real cases alone",
    "- again": "the control again: chance alone",
    "- double": "the yardstick: twice the real cases",
    "sizes": "required: training subjects",
    "primary": "of the verdict",
    "draws": "training subsets of each size",
    "seeds": "trainings on each subset",
    "split": "required, at least sealed",
}
"""What stands beside the lines of a plan, by what is before their colon."""
COLUMN = 41  # of the comments, unless a line is longer


def plan_text(
    source: CaseSource,
    target: str,
    arms: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    places: Mapping[str, str] | None = None,
    size: Mapping[str, int] | None = None,
) -> str:
    """Return a plan that compares arms with real cases, with these again, and with twice as many.

    Args:
        arms: those with samples, as in a plan.
        settings: of generators, by their registered names.
        places: ``data``, ``subjects`` and others that are written otherwise than in ``source``.
        size: ``steps`` of a training, ``draws`` and ``seeds``; of one left out the usual number.
    """
    counts = {"steps": STEPS, "draws": DRAWS, "seeds": SEEDS} | dict(size or {})
    request = source.request
    subjects = len(subjects_of(source))
    test = max(2, subjects // 5)
    given = {key: getattr(request, key) for key in ("configuration", "plans", "subjects", "root")}
    plan: dict[str, Any] = {
        "name": plan_name(source.name),
        "gansynth": build(),
        "data": f"{request.kind}:{request.where}",
    }
    plan |= {key: value for key, value in given.items() if value is not None}
    if request.read:
        plan["read"] = dict(request.read)
    plan.update(places or {})
    plan["host"] = {"target": target, "steps": counts["steps"]}
    if settings:
        plan["generators"] = {each: {"generator": each, "set": settings[each]} for each in settings}
    plan |= {
        "arms": ["default", "again", "double", *map(dict, arms)],
        **({} if trials_of(target).saving_levels() is None else {"primary": DICE_AT_ALARMS}),
        # The most of which there are twice as many: the nearest to a training on all of them.
        "sizes": [(subjects - 2 * test) // 2],
        "draws": counts["draws"],
        "seeds": counts["seeds"],
        "split": {"development": test, "sealed": test},
    }
    text = yaml.safe_dump(plan, sort_keys=False, default_flow_style=None, width=math.inf)
    return HEAD + "\n".join(map(_commented, text.splitlines()))


def plan_name(data: str) -> str:
    """Return the name of a plan for KIND:WHERE."""
    return re.sub(r"[^A-Za-z0-9]+", "-", Path(data.rpartition(":")[2]).name).strip("-") or "plan"


def places_of(request: SourceRequest) -> dict[str, str]:
    """Return the paths of data for a plan in another folder: absolute, as far as they are paths."""
    asked = {"data": f"{request.kind}:{request.where}"}
    asked |= {"subjects": request.subjects} if request.subjects else {}
    asked |= {"root": str(request.root)} if request.root else {}
    return {key: absolute(text) for key, text in asked.items()}


def absolute(text: str) -> str:
    """Return a path, also after KIND:, as an absolute one; anything else as it is."""
    kind, colon, where = text.rpartition(":")
    return f"{kind}{colon}{Path(where).absolute()}" if where and Path(where).exists() else text


def subjects_of(source: CaseSource) -> set[str]:
    """Return the subjects of all cases of a source."""
    return {source.header(case).subject for case in (*source.train_ids, *source.held_out_ids)}


def _commented(line: str) -> str:
    comment = COMMENTS.get(line.partition(":")[0])
    return line if comment is None else f"{line.ljust(COLUMN - 3)}  # {comment}"
