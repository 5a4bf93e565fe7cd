"""The hosts that the tests of conformance go through."""

import pytest

from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401  # fixtures
from tests.adapters.kits import HOSTS, Kit, kit_of
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401  # fixtures


@pytest.fixture(params=HOSTS)
def kit(request, tmp_path) -> Kit:
    """Each host, with folders of its own."""
    return kit_of(request.param, tmp_path, request.getfixturevalue)
