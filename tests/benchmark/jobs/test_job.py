"""Jobs that do not fit together are refused before anything runs."""

from dataclasses import replace

import pytest

from gansynth.runtime.errors import UsageFault
from tests.benchmark.jobs.small import Small, key_of


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (
            {"free": [], "a": ["c"], "b": ["a"], "c": ["b"]},
            r"need each other: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)\b",
        ),
        ({"a": ["nobody"]}, f"job 'a': needs {key_of('nobody')}, which is no job"),
    ],
)
def test_needs_that_cannot_be_met(small: Small, needs, says):
    for name, others in needs.items():
        small.add(name, needs=others)
    with pytest.raises(UsageFault, match=says):
        small.run()
    assert list(small.marks.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *(
            ({"key": key}, "expected 16 to 64 digits")
            for key in ("", "abc", "g" * 16, "../" + "a" * 16, "A" * 16)
        ),
        ({"folder": "elsewhere"}, r"folder .*elsewhere: expected .*store"),
        ({"argv": ()}, r"job 'a': no words"),
        ({"title": "b"}, r"given twice, as 'a' and 'b'"),
    ],
)
def test_a_job_that_is_none(small: Small, change, says):
    job = small.add("a")
    folder = small.tmp / change["folder"] if "folder" in change else None
    other = replace(job, **{**change, "folder": folder or small.store.folder / job.key})
    if "key" in change:
        other = replace(other, folder=small.store.folder / change["key"])
    small.jobs = [job, other] if "title" in change else [other]
    with pytest.raises(UsageFault, match=says):
        small.run()
    assert list(small.marks.iterdir()) == []
