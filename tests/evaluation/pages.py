"""Reports of all made-up documents, written once."""

import json
import tempfile
from functools import cache
from pathlib import Path

import pytest

from gansynth_evaluate.report import write_report
from tests.benchmark.html_tree import parsed
from tests.evaluation import documents

PICTURED = ("full", "hostile")
SECTIONS = [
    *("realism", "spectra-and-intensities", "maps", "faithfulness-to-labels", "memorisation"),
    *("exported-files", "seconds", "how-to-read-this"),
]


def write(name, folder):
    """Write one report; those that are ``PICTURED`` have pictures."""
    document = documents.EVERY[name]()
    pictures = documents.pictures(document) if name in PICTURED else {}
    return document, write_report(document, folder, pictures)


@cache
def written(name):
    with tempfile.TemporaryDirectory() as folder:
        document, paths = write(name, Path(folder) / "made" / "here")
        texts = [paths[key].read_text("utf-8") for key in ("report.html", "report.md")]
    return json.loads(json.dumps(document)), *texts


@cache
def page(name):
    return parsed(written(name)[1])


def section(name, key):
    return next(s for s in page(name).all("section") if s.attributes["id"] == key)


EVERY = pytest.mark.parametrize("name", documents.EVERY)
