"""Fixtures of other packages that rows of the matrix are tried with."""

from tests.adapters.conftest import box_run, crop_run, shared_deepmedic, shared_yolo  # noqa: F401
from tests.cli.conftest import toys, world  # noqa: F401
