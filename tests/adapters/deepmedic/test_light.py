"""What DeepMedic's own Python imports: numpy and h5py, and nothing that it need not have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import gansynth
import gansynth_deepmedic
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.files import write_json_atomic
from gansynth_deepmedic.order import ORDER, PROGRESS, Order
from tests.adapters.deepmedic.arrays import patch, volume, write_bank

CHILD = """
import json, sys, types
from pathlib import Path

HEAVY = {"torch", "pydantic", "nibabel", "scipy", "yaml", "click", "pluggy", "rich", "filelock",
         "psutil", "safetensors", "pandas", "matplotlib", "tensorflow"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
for name, folder in zip(("gansynth", "gansynth_deepmedic"), sys.argv[1:3]):
    assert name not in sys.modules
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package

from gansynth_deepmedic.order import Order, Progress, PROGRESS
import gansynth_deepmedic.insertion, gansynth_deepmedic.subepochs
import numpy as np

order = Order.read(Path(sys.argv[3]))
arrays = dict(np.load(sys.argv[4]))
read = lambda path: arrays[path].copy()
subepochs, progress = order.made(), Progress(order.output / PROGRESS)
for place in subepochs.order(1):
    loaded = subepochs.load(place, read)
    total = 0 if loaded.core is None else int(loaded.core.sum())
    progress.tell(job={"place": place.number, "case": loaded.case, "sample": loaded.sample,
                       "core": total, "sum": float(loaded.image.sum(dtype="float64"))})
assert "h5py" in sys.modules
print(json.dumps(sorted(HEAVY.intersection(name.partition(".")[0] for name in sys.modules))))
"""


def test_a_subepoch_is_loaded_with_numpy_and_h5py_alone(tmp_path):
    volumes = [volume(f"pat_{n}", (9, 8, 7), seed=n) for n in range(3)]
    samples = [patch(volumes[n % 3], (1, 2, 1), (5, 5, 5), value=50.0 + n) for n in range(9)]
    plan: MixPlan[int] = MixPlan(
        write_bank(tmp_path / "bank", samples), Ratio(1, 1), seed=3, log=tmp_path / "log"
    )
    cases = tuple(one.host for one in volumes)
    order = Order("deepmedic", tmp_path, tmp_path / "train.cfg", plan, cases, count=6)
    write_json_atomic(tmp_path / ORDER, order.to_json())
    files = {path: array for one in volumes for path, array in one.files.items()}
    stored = tmp_path / "files.npz"
    np.savez(stored, **files)  # type: ignore[arg-type]
    folders = [str(Path(package.__path__[0])) for package in (gansynth, gansynth_deepmedic)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, *folders, tmp_path / ORDER, stored],
        env={**os.environ, "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    found = [json.loads(line)["job"] for line in (tmp_path / PROGRESS).read_text().splitlines()]
    subepochs = order.made()
    for job, place in zip(found, subepochs.order(1), strict=True):
        loaded = subepochs.load(place, lambda path: files[path].copy())
        assert (job["case"], job["sample"]) == (loaded.case, loaded.sample)
        assert job["sum"] == float(loaded.image.sum(dtype="float64"))
        assert job["core"] == (0 if loaded.core is None else loaded.core.sum())
    assert sum(bool(job["sample"]) for job in found) == 3
