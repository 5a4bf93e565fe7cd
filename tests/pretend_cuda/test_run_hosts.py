"""The same for the frameworks: a file of its own, so that both run at once."""

from tests.pretend_cuda.test_run import HOSTS, marks, run

pytestmark = marks


def test_frameworks_run_on_a_pretend_device(tmp_path):
    run(HOSTS, tmp_path / "child")
