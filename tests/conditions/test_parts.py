from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edits.shared import keeps_nesting
from gansynth.core.edit import EditContext

CHANGES: dict[str, dict[str, Any]] = {
    "shift": {"max_mm": 8.0},
    "rotate": {"max_deg": 180.0},
    "scale": {"low": 0.5, "high": 3.0},
    "elastic": {"amplitude_mm": 8.0, "correlation_mm": 5.0},
    "flip": {"about": "centroid", "probability": 1.0, "axes": (0, 1)},
    "enlarge": {"low": 1.5, "high": 3.0},
    "shrink": {"low": 0.3, "high": 0.7},
}


@pytest.mark.parametrize("classes", [(2,), (1,), (2, 4), (1, 2)])
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_chosen_classes_stay_nested(name, classes, make, toy, schema):
    labels = toy(2, (0.7, 0.7))
    context = EditContext(labels, schema(2, (0.7, 0.7)))
    edit = make(name, **CHANGES[name], classes=classes)
    for seed in range(6):
        after = edit.apply(context, edit.draw(context, np.random.default_rng(seed))).labels
        assert keeps_nesting(labels, after)
        if name not in ("scale", "shrink") and 2 in classes:
            assert (after == 2).sum() >= 0.7 * (labels == 2).sum()


def test_shift_with_nested_no_may_lay_a_class_bare(make, toy, schema):
    edit = make("shift", max_mm=8.0, classes=(2,), nested=False)
    context = EditContext(toy(), schema())
    drawn = [edit.draw(context, np.random.default_rng(seed)) for seed in range(12)]
    assert all(params["strength"] == 1 for params in drawn)
    assert not all(keeps_nesting(toy(), edit.apply(context, params).labels) for params in drawn)
    whole = make("shift").draw(context, np.random.default_rng(0))
    assert "nested" not in whole  # moves of the whole foreground know no nesting
