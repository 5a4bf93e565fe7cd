"""Exports that are stopped: nothing that could be taken for a data set is left behind."""

import errno
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.hosts.export import take_up
from gansynth.runtime.errors import EnvironmentFault
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.export import NnunetExport
from gansynth_nnunet.source import open_nnunet

NAME = "Dataset510_Plus"
# nnU-Net and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


# -- in this process -----------------------------------------------------------------------------


def test_an_interrupted_export_leaves_nothing(exports, monkeypatch):
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gansynth_nnunet.export.write_case", stop)
    with pytest.raises(KeyboardInterrupt):
        exports()
    assert (exports.there, exports.hidden) == (set(), [])


def test_a_full_disk_leaves_no_data_set(exports, monkeypatch):
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gansynth_nnunet.export.write_case", full)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        exports()
    assert (exports.there, exports.hidden) == (set(), [])


def test_only_samples_of_the_same_order_are_taken_up_again(toy_copy, fitted):
    adapter = NnunetAdapter(open_nnunet(toy_copy.request()))
    kept = []
    for seed in (0, 0, 1):
        injection = Injection(
            RunFolder(fitted), Ratio.parse("1:1"), samples=SampleRequest(seed=seed), device="cpu"
        )
        export = NnunetExport(adapter.host, injection, NAME, "mixed", None)
        segment = export.build / "bank" / "segment-000000.h5"
        segment.parent.mkdir(parents=True, exist_ok=True)
        kept.append(segment.exists())
        take_up(export.order(), export.generator)
        segment.parent.mkdir(exist_ok=True)
        kept.append(segment.exists())
        segment.touch()
    assert kept == [False, False, True, True, True, False]


# -- in one of its own ---------------------------------------------------------------------------


def started(command: list[str], toy: Any) -> subprocess.Popen[str]:
    """An export of 64 samples in a process of its own that has drawn some."""
    line = [sys.executable, "-m", "gansynth_cli", *command, "--ratio", "1:16"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not list(toy.root.glob("nnUNet_preprocessed/.*/bank/segment-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_a_killed_export_is_no_data_set_and_goes_on_where_it_was(
    exports, export_command, toy_copy, run_cli
):
    process = started(export_command, toy_copy)
    process.kill()
    process.communicate()
    assert exports.there == set()
    assert len(exports.hidden) == 1
    time.sleep(4)  # its producer has noticed by then
    result = run_cli(*export_command, "--ratio", "1:16", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(list((exports.mixed / "nnUNetPlans_3d_fullres").glob("synthetic_*.pkl"))) == 64
    assert (exports.there, exports.hidden) == ({NAME}, [])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_cleans_up(exports, export_command, toy_copy, number, code):
    process = started(export_command, toy_copy)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert (exports.there, exports.hidden) == (set(), [])
