"""Conformance checks for any plugin, by kind.

They return a report of named checks instead of stopping at the first failure. A test only needs
``report.raise_if_failed()``.
"""

from gansynth.core.conformance import Check, ConformanceReport
from gansynth.data.source_checks import check_source
from gansynth.testing.case_readers import check_edit, check_filter
from gansynth.testing.generators import check_generator
from gansynth.testing.hosts import check_host
from gansynth.testing.metrics import check_metric
from gansynth.testing.readers import check_reader
from gansynth.testing.toy import ToySource
from gansynth.testing.writers import check_writer

__all__ = [
    "Check",
    "ConformanceReport",
    "ToySource",
    "check_edit",
    "check_filter",
    "check_generator",
    "check_host",
    "check_metric",
    "check_reader",
    "check_source",
    "check_writer",
]
