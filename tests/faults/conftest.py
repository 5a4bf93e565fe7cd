"""Fixtures of other packages that rows of the matrix are tried with."""

from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401
from tests.cli.conftest import toys, world  # noqa: F401
