"""What only some systems have: named in one module, and done without where it is missing."""

import os
import subprocess
import sys

import pytest

from tests.house import PRODUCT, ROOT
from tests.systems import FOLDERS, named_in

HOME = ROOT / "gansynth" / "runtime" / "system.py"
APART = {HOME, HOME.with_name("watchdog.py")}
"""The watchdog runs without gansynth, and is started where ``system`` says that it is of use."""
LACKING = ROOT / "tests" / "lacking"


def test_one_module_names_what_only_some_systems_have():
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    assert named_in(HOME)
    found = {str(file.relative_to(ROOT)): named_in(file) for file in files if file not in APART}
    assert {file: names for file, names in found.items() if names - {FOLDERS[1]}} == {}


WHOLE_WAY = """
import signal

import gansynth
from torch.utils.data import DataLoader

class Real:
    def __init__(self, source):
        self.source = source
    def __len__(self):
        return len(self.source.train_ids)
    def __getitem__(self, index):
        import torch
        case = self.source.load(self.source.train_ids[index])
        return {"image": torch.from_numpy(case.image), "label": torch.from_numpy(case.labels[None])}

if __name__ == "__main__":
    assert not hasattr(signal, "SIGKILL")
    assert gansynth.check("example:3d", subjects="each").cases == 16
    run = gansynth.fit(
        "dcgan", data="example:3d", out="run", device="cpu", steps=4, width=8, with_mask=True
    )
    assert len(run.sample(2)) == 2
    run = gansynth.fit("parametric", data="example:3d", out="drawn")  # whose samples are let in
    bank = gansynth.fill_bank(run, "bank", 4, device="cpu")
    real = Real(run.source)
    mixed = gansynth.mix(real, bank, "1:1", held_out=run.source.held_out_ids)
    shapes = [tuple(batch["image"].shape) for batch in DataLoader(mixed, 4, num_workers=1)]
    assert shapes[0] == (4, 2, 16, 16, 16), shapes
    gansynth.augment(
        target="segmenter", data="example:3d", generator=run, ratio="1:1",
        bank_size=4, out="trained", set={"device": "cpu", "steps": 4, "width": 4, "levels": 2},
    )
"""


@pytest.mark.slow
@pytest.mark.ci
def test_the_whole_way_is_gone_without_what_only_posix_has(tmp_path):
    (tmp_path / "way.py").write_text(WHOLE_WAY)
    path = os.pathsep.join(filter(None, (str(LACKING), os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        [sys.executable, "way.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "trained" / "segmenter.json").exists()
