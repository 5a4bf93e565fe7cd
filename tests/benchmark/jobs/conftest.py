import pytest

from tests.benchmark.jobs.small import Small


@pytest.fixture
def small(tmp_path) -> Small:
    return Small(tmp_path)
