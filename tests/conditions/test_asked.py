"""Edits as text: what is read, and what is refused in one line."""

import re
from typing import Any

import pytest

from gansynth.conditions.edit_chain import build_edit
from gansynth.runtime.errors import UsageFault

GOOD: dict[str, dict[str, Any]] = {
    "shift": {"max_mm": 8.0, "classes": None, "share": 1.0},
    "shift: max_mm = 12 , classes = 1 + 2 ": {"max_mm": 12.0, "classes": (1, 2)},
    "shift:classes=none,nested=no": {"classes": None, "nested": False},
    "flip:axes=0+-1,probability=1,about=centroid": {"axes": (0, -1), "about": "centroid"},
    "scale:low=5e-1,high=.9,share=0.25": {"low": 0.5, "high": 0.9, "share": 0.25},
    "components:edit=scale,inner.low=0.9,inner.classes=1+2,classes=4": {
        "edit": "scale",
        "inner": {"low": "0.9", "classes": "1+2"},
        "classes": (4,),
    },
    "transplant:own=keep,pairs=ordered,classes=1+2": {"own": "keep", "classes": (1, 2)},
    "interpolate:pairs=nearest,among=3,low=0.1": {"pairs": "nearest", "among": 3},
    "merge:tissues=1+2+3": {"tissues": (1, 2, 3), "tumour": None},
    "place:each=yes,where=anywhere": {"each": True, "where": "anywhere"},
    "size:like=small,bias=2,each=no": {"like": "small", "bias": 2.0, "each": False},
}
BAD = {
    "shif": "edit 'shif' is unknown, .* Did you mean 'shift'",
    "": "edit '' is unknown",
    "shift:": "'' is not one of share, classes, nested, max_mm, each once",
    "shift:max_m=1": "'max_m=1' is not one of .* Did you mean 'max_mm'",
    "shift:max_mm=1,max_mm=2": "'max_mm=2' is not one of .*, each once",
    "shift:max_mm=far": r"max_mm: expected a number.* \(longest shift, mm",
    "shift:max_mm=-1": "max_mm: expected a number greater than or equal to 0",
    "shift:max_mm=.nan": "max_mm: expected",
    "shift:max_mm=[": "a value is not readable, expected YAML",
    "shift:max_mm=2020-99-99": "max_mm: expected a number",
    "shift:classes=1+": "classes: expected whole numbers, as classes=1",
    "shift:max_mm.x=1": "'max_mm.x=1' is not one of",
    "flip:about=me": "about: expected 'array' or 'centroid'",
    "scale:low=3": "low 3.0 is above high 1.25, expected low <= high",
    "interpolate:low=0.7,high=0.2": "low 0.7 is above high 0.2",
    "merge:tissues=1,tumour=4": "both given, expected one",
    "place:nested=no": "'nested=no' is not one of share, classes, each, where",
    "components:edit=scal": "edit: edit 'scal' is unknown, .* Did you mean 'scale'",
    "components:edit=components": "edit: components cannot edit a part alone",
    "components:edit=place": "edit: place cannot edit a part alone",
    "components:inner.max=4": "inner: edit 'shift': 'max' is not one of .* Did you mean 'max_mm'",
    "components:inner.=1": "'inner.=1' is not one of",
    "components:inner=1": "inner: expected a valid",
    "components:inner.share=0.5": "inner: has a share, expected chance",
}


@pytest.mark.parametrize("text", GOOD)
def test_edit_text_is_read_into_options(text):
    edit = build_edit(text)
    assert edit.name == text.partition(":")[0]
    found = edit.options.model_dump()
    assert {key: found[key] for key in GOOD[text]} == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_edit_text_that_does_not_fit_is_refused_in_one_line(text):
    with pytest.raises(UsageFault) as fault:
        build_edit(text)
    message = str(fault.value)
    assert re.search(BAD[text], message)
    assert "\n" not in message
    assert "Value error" not in message
    if ":" in text:  # key and value, as they were typed
        assert message.startswith(f"--edit {text}: ")
