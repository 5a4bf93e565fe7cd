"""What a dry run says a fit takes, beside what the fit takes."""

import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter

pytestmark = pytest.mark.usefixtures("real_cuda", "toy_source")


@pytest.mark.gpu
def test_a_dry_run_comes_near_the_memory_of_the_fit(device, tmp_path):
    settings = {"steps": "8", "batch_size": "64", "width": "64", "d_width": "64"}
    expected, happened = (
        fit(
            "cgan3d", SourceRequest("toy", "3"), tmp_path / "run", settings=settings, edits=(),
            device=str(device), dry_run=dry_run, reporter=NullReporter(),
        )
        for dry_run in (True, False)
    )  # fmt: skip
    assert expected["device"] == str(device)
    assert happened["memory_mib"] == pytest.approx(expected["memory_mib"], rel=0.2)
