"""Fixtures of tests that mix: a bank whose samples can be told apart, the examples of the page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def toy_bank(tmp_path, monkeypatch):
    """Makes a bank without a generator: ``toy_bank(samples=8, shape=(6, 6, 6))``.

    Every voxel of sample i is 100 + i, and one voxel in eight, in a corner, has the label 1.
    """
    from gansynth.core.lineage import CaseRecord, Lineage
    from gansynth.core.schema import Sample, Schema
    from gansynth.hosts.mixing import mixture
    from tests.banks import write_bank

    # Temporary logs are removed at exit, which pytest-xdist's workers leave out.
    session = mixture._new_log
    monkeypatch.setattr(mixture, "_new_log", lambda log: session(log or tmp_path / "logs"))

    def make(
        name="bank",
        *,
        samples=8,
        shape=(6, 6, 6),
        channels=("T1",),
        frozen=True,
        case="case_1",
        **schema,
    ):
        labels = np.zeros(shape, np.int16)
        labels[tuple(slice(n // 2) for n in shape)] = 1
        images = [np.full((len(channels), *shape), 100 + i, np.float32) for i in range(samples)]
        pairs: Any = [(Sample(image, labels, provenance={"case": case}), {}) for image in images]
        names, axes = {"background": 0, "organ": 1}, "DHW"[-len(shape) :]
        told = replace(Schema(channels, names, (1.0,) * len(shape), axes), **schema)
        lineage = Lineage("toy:3", "0", (CaseRecord(case, "person_1", "1" * 64),))
        return write_bank(tmp_path / name, told, lineage, pairs, frozen=frozen)

    return make


@pytest.fixture
def example():
    """Runs an example of a page of docs as it stands there: ``example("monai", bank=...)``.

    It gets the names that are given and returns all it has then.
    """
    ran: list[dict[str, Any]] = []

    def run(name: str, change: tuple[str, str] = ("", ""), **names: Any) -> dict[str, Any]:
        mark = f"<!-- run: {name} -->\n```python\n"
        pages = [page.read_text("utf-8") for page in DOCS.glob("*.md")]
        (page,) = [text for text in pages if mark in text]
        code = page.split(mark)[1].split("```\n")[0]
        assert change[0] in code
        ran.append(names)
        exec(compile(code.replace(*change), f"docs: {name}", "exec"), names)
        return names

    yield run
    for names in ran:  # its functions refer to them; left to the collector, loaders end slowly
        names.clear()
