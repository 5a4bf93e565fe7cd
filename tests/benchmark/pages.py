"""Reports of all made-up documents, written once."""
# mypy: disallow-untyped-calls=False

import json
import tempfile
from functools import cache
from pathlib import Path

import pytest

from gansynth.benchmark.report import write_report
from tests.benchmark import documents
from tests.benchmark.html_tree import parsed


@cache
def written(name):
    """A document, its page and its Markdown."""
    document = documents.EVERY[name]()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_report(document, Path(folder) / "made" / "here", documents.overlays(document))
        assert set(paths) == {"report.html", "report.md"}
        texts = [paths[key].read_text("utf-8") for key in ("report.html", "report.md")]
    return json.loads(json.dumps(document)), texts[0], texts[1]


@cache
def page(name):
    return parsed(written(name)[1])


EVERY = pytest.mark.parametrize("name", documents.EVERY)
