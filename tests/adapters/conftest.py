"""The data sets and runs of all hosts, which the tests of conformance go through."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401  # fixtures
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401  # fixtures


@pytest.fixture(scope="session", autouse=True)
def _modules_known() -> Iterator[None]:
    """nnU-Net asks of each module where it lies, for each trainer that it looks for: told once."""
    from nnunetv2.utilities import find_class_by_name as search

    looked_up, known = search._module_originates_from_path, dict[tuple[str, str], bool]()

    def lies_in(module: Any, path: str) -> bool:
        file = getattr(module, "__file__", None)
        if file is None:
            return bool(looked_up(module, path))
        if (file, path) not in known:
            known[file, path] = looked_up(module, path)
        return known[file, path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_module_originates_from_path", lies_in)
        yield
