import os
import shutil
import subprocess
import sys
import time
from math import prod
from typing import Any

import pytest

from gansynth.runtime.files import read_json
from gansynth_nnunet.cases import hashes_of
from gansynth_nnunet.plans import PrepareSettings, shrink
from gansynth_nnunet.raw import check_nnunet
from gansynth_nnunet.source import NnunetSource
from tests.conftest import prepare
from tests.expected import raises_fault


def test_what_is_done_is_not_done_again_unless_raw_data_changed(toy_copy, cheap_nnunet):
    report = prepare(toy_copy.request(plans=None), ["3d_fullres", "2d"])
    assert [step for step, seconds in report["seconds"].items() if seconds] == ["check"]
    os.utime(next(toy_copy.raw.glob("labelsTr/*")), (time.time() + 60,) * 2)
    report = prepare(toy_copy.request(plans=None), ["2d"], processes=1)
    assert min(report["seconds"].values()) > 0


@pytest.mark.fault(3)
def test_arrays_of_nnunets_own_command_are_noted_by_prepare_and_unverified_before(toy_copy):
    """A bit that the decoder takes: from prepare on, its hash tells; before, the check says so."""
    own, folder = toy_copy.request(plans=None), NnunetSource(toy_copy.request()).folder
    note, array = hashes_of(folder), next(folder.glob("*_seg.b2nd"))

    def unverified() -> tuple[list[str], list[str]]:
        found = check_nnunet(own, lambda done, total: None).findings
        said = [one.message for one in found if "not verified" in one.message]
        return said, [one.file.name for one in found if one.level == "error"]

    before = read_json(note)
    assert unverified() == ([], [])
    note.unlink()
    for _ in range(2):  # a check that noted what it read would be content the second time
        (said,), damaged = unverified()
        assert f"{folder}: {len(before)} arrays are not verified" in said
        assert (damaged, note.exists()) == ([], False)
    prepare(own, ["3d_fullres"])
    assert read_json(note) == before
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)
    assert unverified() == ([], [array.name])
    note.unlink()
    array.write_bytes(data[:50])
    with raises_fault("nnunet.array-damaged", names=array.name):
        prepare(own, ["3d_fullres"])


def test_force_prepares_again_tells_how_far_it_is_and_leaves_the_environment(
    toy_copy, cheap_nnunet, capsys, monkeypatch
):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.setenv("nnUNet_results", "mine")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # none to augment: planning works all the same
    before = dict(os.environ)
    prepare(toy_copy.request(plans=None), ["2d"], processes=1, force=True, quiet=False)
    out, err = capsys.readouterr()
    told = {line.partition(" (")[0] for line in err.splitlines()}
    assert {"check: 6/6", "fingerprint: 1/1", "plan: 1/1", "2d: 6/6"} <= told
    assert out == ""
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("plans", "configuration", "settings", "expected"),
    [
        (None, "3d_lowres", {}, "nnunet.configuration-unknown"),
        ("ownPlans", "2d", {}, "nnunet.plans-missing-or-outdated"),
        (None, "2d", {"plans_name": "nnUNetPlans"}, "nnunet.small-plans-name-taken"),
        (None, "2d", {"plans_name": "../x"}, "options.value-invalid"),
        (None, "2d", {"features": "8,16"}, "options.value-invalid"),  # nnU-Net's loss would be NaN
        (None, "2d", {"patch": "0x8x8"}, "options.value-invalid"),
    ],
)
def test_what_cannot_be_prepared_is_refused(toy_copy, plans, configuration, settings, expected):
    small: dict[str, Any] = {"small": "yes"} if settings else {}
    with raises_fault(expected):
        prepare(toy_copy.request(plans=plans), [configuration], **small, **settings)


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        *(([40, 56, 40], asked) for asked in (None, (9, 20, 34))),  # 9 and 17 are odd
        *((own, None) for own in ([20, 320, 256], [6, 64, 64], [24, 20])),
    ],
)
def test_a_small_patch_fits_nnunets_own_and_its_strides_divide_it(own, asked):
    """Something of it is left for the lowest stage, too."""
    arch: dict[str, Any] = {"strides": [[1] * len(own), *[[2] * len(own)] * 3]}
    arch |= {"kernel_sizes": [[3] * len(own)] * 4}
    arch |= {"n_conv_per_stage": [2] * 4, "n_conv_per_stage_decoder": [2] * 3}
    big = {"patch_size": own, "batch_size": 12, "architecture": {"arch_kwargs": arch}}
    small = shrink(big, PrepareSettings(patch=asked))
    assert all(few <= most for few, most in zip(small["patch_size"], own, strict=True))
    assert prod(small["patch_size"]) <= 48**2 * (20 if len(own) == 3 else 1)
    for axis, edge in enumerate(small["patch_size"]):
        stride = prod(stage[axis] for stage in small["architecture"]["arch_kwargs"]["strides"])
        assert edge % stride == 0
        assert edge // stride >= 4
    with raises_fault("nnunet.small-plans-patch-unfit", names=f"expected {len(own)} "):
        shrink(big, PrepareSettings(patch=(8, 8, 8, 8)))


SCRIPT = """
import sys
import gansynth
gansynth.prepare("nnunet:501", configuration="2d", processes=1, root=sys.argv[1], quiet=True)
"""


@pytest.mark.slow
def test_nnunets_own_worker_processes_leave_a_plain_script_alone(toy_copy, tmp_path):
    shutil.rmtree(toy_copy.preprocessed / "nnUNetPlans_2d")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(toy_copy.root)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(NnunetSource(toy_copy.request(configuration="2d", fold="all")).train_ids) == 6
