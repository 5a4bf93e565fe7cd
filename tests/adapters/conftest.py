"""The data sets and runs of all hosts, which the tests of conformance go through."""

from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401  # fixtures
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401  # fixtures
