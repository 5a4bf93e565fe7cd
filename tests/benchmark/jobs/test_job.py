"""Jobs that do not fit together are refused before anything runs."""

from dataclasses import replace

import pytest

from gansynth.runtime.errors import UsageFault
from tests.benchmark.jobs.small import Small, key_of


def refused(small: Small, match: str) -> None:
    with pytest.raises(UsageFault, match=match):
        small.run()
    assert list(small.marks.iterdir()) == []


def test_a_circle(small: Small):
    small.add("free")
    small.add("a", needs=["c"])
    small.add("b", needs=["a"])
    small.add("c", needs=["b"])
    refused(small, r"need each other: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)\b")


def test_a_need_that_is_no_job(small: Small):
    small.add("a", needs=["nobody"])
    refused(small, f"job 'a': needs {key_of('nobody')}, which is no job")


def test_a_key_given_twice(small: Small):
    job = small.add("a")
    small.jobs = [job, replace(job, title="b")]
    refused(small, r"given twice, as 'a' and 'b'")


@pytest.mark.parametrize("key", ["", "abc", "g" * 16, "../" + "a" * 16, "A" * 16])
def test_a_key_that_is_none(small: Small, key):
    job = small.add("a")
    small.jobs = [replace(job, key=key, folder=small.store.folder / key)]
    refused(small, r"expected 16 to 64 digits")


def test_a_folder_outside_of_the_store(small: Small):
    small.jobs = [replace(small.add("a"), folder=small.tmp / "elsewhere")]
    refused(small, r"folder .*elsewhere: expected .*store")


def test_a_job_without_words(small: Small):
    small.jobs = [replace(small.add("a"), argv=())]
    refused(small, r"job 'a': no words")
