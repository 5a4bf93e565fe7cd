"""Detectors are trained in processes of their own, since they change global state for good."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gansynth_yolo.detectors import DETECTORS

ROOT = Path(__file__).parents[3]
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9"}


def needs(name: str) -> pytest.MarkDecorator:
    """Skips without a detector's library; to import it, as ``importorskip`` does, changes much."""
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"needs the extra {DETECTORS[name][2]}")


def run_jobs(
    script: str, folder: Path, jobs: dict[str, dict[str, Any]], fails: bool = False
) -> Any:
    """Have a script beside this one do jobs, each in a folder of its name.

    Returns:
        What each came to, by name, and ``log``, its stderr; where it fails, the last of that.
    """
    for name, job in jobs.items():
        (folder / name).mkdir(parents=True)
        job["folder"] = str(folder / name)
    file = folder / "jobs.json"
    file.write_text(json.dumps(list(jobs.values())))
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), file],
        env={**os.environ, **OFFLINE, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    if fails:
        assert ran.returncode == 1
        return ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == ""
    done = json.loads(file.with_suffix(".out.json").read_text())
    return {**dict(zip(jobs, done, strict=True)), "log": ran.stderr}


def answer(run: Callable[..., Any]) -> None:
    """Do the jobs that a process was started for."""
    jobs = Path(sys.argv[1])
    done = [run(**job) for job in json.loads(jobs.read_text())]
    jobs.with_suffix(".out.json").write_text(json.dumps(done))
