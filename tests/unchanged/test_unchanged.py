"""What a rebuilding of the house must not change: samples, weights, banks and runs of today.

``reference.json`` holds what the code of its commit gave. Bytes of floating-point results are a
processor's: on another one their mean and deviation are compared, to a thousandth. To make it anew,
after a change that is meant to change samples (say so in the changelog):

    GANSYNTH_REFERENCE=write pytest tests/unchanged
"""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import gansynth
from gansynth.bank.reader import BankReader, BankSpec, BankWriter, verify_bank
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.registry import installed
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from tests.offered import offered
from tests.plugins.toys import Toys, fit_toys

HERE = Path(__file__).parent
REFERENCE = HERE / "reference.json"
WRITES = os.environ.get("GANSYNTH_REFERENCE") == "write"
LOOP = {"precision": "fp32", "batch_size": 2, "log_every": 1, "steps": 2, "diversity": 0}
SMALL = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1}
RUNS: Mapping[str, tuple[str, str, Mapping[str, object], tuple[str, ...]]] = {
    "cgan3d": ("cgan3d", "unseen:3", {**SMALL, "standardise": "no"}, ("flip",)),
    "cgan3d in slices": ("cgan3d", "unseen:2", {**SMALL, "loss": "hinge"}, ("rotate",)),
    "cgan3d-lesion": ("cgan3d-lesion", "unseen:3", SMALL, ()),
    "cgan3d-labels": ("cgan3d-labels", "unseen:2", {**SMALL, "given": "first"}, ()),
    "cpggan": ("cpggan", "unseen:boxes", {"width": 4, "stage_images": 2, "fade_images": 2}, ()),
    "dcgan gan": ("dcgan", "unseen:2", {"width": 4, "latent": 4, "objective": "gan"}, ()),
    "dcgan wgan": ("dcgan", "unseen:2", {"width": 4, "latent": 4, "objective": "wgan"}, ()),
    "dcgan wgan-gp": ("dcgan", "unseen:2", {"width": 4, "with_mask": "yes"}, ()),
    "copypaste": ("copypaste", "unseen:3", {}, ()),
    "elastic": ("elastic", "unseen:3", {}, ()),
    "parametric": ("parametric", "unseen:3", {}, ()),
}
UNTRAINED = ("copypaste", "elastic", "parametric")
LEARNT = tuple(
    name for name, (generator, *_) in RUNS.items() if generator in name and RUNS[name][2]
)


def asked(data: str) -> SourceRequest:
    kind, _, where = data.partition(":")
    return SourceRequest(kind, where)


@pytest.fixture(scope="module", autouse=True)
def _sources():
    with offered("unseen", sources={"unseen": Toys}):
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of one of ``RUNS``, fitted for two steps when it is first asked for."""
    home = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        out: Path = home / name
        if not out.exists():
            generator, data, own, edits = RUNS[name]
            known = {**LOOP, **own} if generator not in UNTRAINED else own
            fit_toys(generator, asked(data), out, edits, **known)
        return out

    return run


def processor() -> str:
    """Where equal code gives equal bytes; clouds name many processors alike, so flags count.

    With another number of threads torch adds in another order.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    first = dict(re.findall(r"^(.*\S)\s*: (.*)", text.partition("\n\n")[0], re.M))
    model = [first.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    flags = hashlib.sha256(first.get("flags", "").encode()).hexdigest()[:8]
    kind, threads = torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} threads"
    parts = (platform.machine(), *model, flags, kind, threads)
    return " / ".join((*parts, f"torch {torch.__version__}", f"numpy {np.__version__}"))


def account(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Hash of all, and of each array its shape, mean and deviation."""
    digest, lines = hashlib.sha256(), {}
    for name, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        wide = array.astype(np.float64)
        assert np.isfinite(wide).all(), name
        figures = (float(wide.mean()), float(wide.std())) if wide.size else (0.0, 0.0)
        lines[name] = [list(array.shape), *figures]
    return {"sha256": digest.hexdigest(), "arrays": lines}


def compare(what: str, found: dict[str, Any]) -> None:
    """Hold an account against the reference; or write it there."""
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    if WRITES:
        known["processor"], known[what] = processor(), found
        REFERENCE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        return
    if known["processor"] == processor():
        assert found["sha256"] == known[what]["sha256"]
    assert found["arrays"].keys() == known[what]["arrays"].keys()
    for name, (shape, mean, deviation) in found["arrays"].items():
        old_shape, old_mean, old_deviation = known[what]["arrays"][name]
        assert shape == old_shape, name
        near = pytest.approx((old_mean, old_deviation), rel=1e-3, abs=1e-3)
        assert (mean, deviation) == near, name


def samples_of(run: Path, data: str) -> dict[str, Any]:
    """Images, labels and boxes of three samples."""
    source = Toys(asked(data))
    opened, request = load_run(run, "cpu"), SampleRequest(seed=5)
    if "lesion" in opened.capabilities.takes:  # beside the real ones, in every sample
        request = replace(request, lesions="add", prevalence=1.0)
    drawer = Sampler(opened, source, request)
    arrays: dict[str, Any] = {}
    for number, sample in enumerate(drawer.draw(0, 3)):
        boxes = sample.boxes.coords if sample.boxes is not None else None
        parts = {"image": sample.image, "labels": sample.labels, "boxes": boxes}
        arrays |= {f"{number} {key}": value for key, value in parts.items() if value is not None}
    return arrays


def test_every_generator_has_a_run_here():
    assert {generator for generator, *_ in RUNS.values()} == set(installed().names("generators"))


@pytest.mark.parametrize("name", LEARNT)
def test_two_steps_of_training_end_in_the_same_weights(name, fitted):
    compare(f"weights of {name}", account(weights(fitted(name))))


@pytest.mark.parametrize("name", RUNS)
def test_samples_at_a_fixed_seed_are_the_same(name, fitted):
    compare(f"samples of {name}", account(samples_of(fitted(name), RUNS[name][1])))


def weights(run: Path) -> dict[str, Any]:
    """The averaged weights, and whatever else the generator's file of weights holds."""
    manifest = json.loads((run / "manifest.json").read_text())
    return dict(load_file(run / manifest["weights"]["path"]))


def kept(name: str) -> Path:
    """The manifest of a run of the reference's commit."""
    return HERE / "runs" / f"{name.replace(' ', '_')}.json"


def drawn_weights(shapes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Numbers in the place of learnt weights, the same wherever they are drawn."""
    rng, drawn = np.random.default_rng(0), {}
    for name, (shape, dtype) in shapes.items():
        values = rng.normal(0, 0.05, shape)
        drawn[name] = (abs(values) if name.endswith("running_var") else values).astype(dtype)
    return drawn


@pytest.mark.parametrize("name", LEARNT)
def test_a_run_of_the_reference_is_read_and_draws_the_same(name, fitted, tmp_path):
    if WRITES:
        manifest = json.loads((fitted(name) / "manifest.json").read_text())
        del manifest["digest"]
        manifest["shapes"] = {
            k: [list(v.shape), str(v.dtype)] for k, v in weights(fitted(name)).items()
        }
        kept(name).parent.mkdir(exist_ok=True)
        kept(name).write_text(json.dumps(manifest, indent=1) + "\n")
    manifest = json.loads(kept(name).read_text())
    path = tmp_path / manifest["weights"]["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(drawn_weights(manifest.pop("shapes")), path)
    manifest["weights"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    compare(f"samples of a kept {name}", account(samples_of(tmp_path, RUNS[name][1])))


SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0), has_outside=True)
SPEC = BankSpec(
    samples=SampleRequest(edits=("elastic",)),
    schema=SCHEMA,
    lineage=Lineage("toy", "0", (CaseRecord("a", "s", "0" * 64),), {"plans": "p"}),
    run_id="run",
    generator="f" * 64,
    frozen=True,
    capacity=4,
)


def banked(index: int) -> Sample:
    """Noise, a label map of noise, and a box."""
    rng = np.random.default_rng(index)
    labels = rng.integers(-1, 2, (3, 4, 5)).astype(np.int16)
    boxes = Boxes(np.array([[0, 0, 0, 2, 2, index + 1]], np.float32), np.array([1], np.int16))
    return Sample(rng.normal(size=(2, 3, 4, 5)).astype(np.float32), labels, boxes, {"index": index})


def written(folder: Path) -> Path:
    with BankWriter.create(folder, SPEC) as writer:
        for index in range(4):
            writer.publish(banked(index), {})
        writer.finish()
    return folder


def sample_files(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("sample-*"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_bank_is_written_as_it_was_to_the_byte(tmp_path):
    folder = written(tmp_path / "bank")
    if WRITES:
        shutil.rmtree(HERE / "bank", ignore_errors=True)
        shutil.copytree(folder, HERE / "bank")
    assert sample_files(folder) == sample_files(HERE / "bank")


def test_a_bank_of_the_reference_is_read_whole():
    verify_bank(HERE / "bank")
    reader = BankReader(HERE / "bank")
    seen = {}
    for sample in (reader.read(place) for place in reader.ids()):
        seen[sample.provenance["index"]] = sample
    assert sorted(seen) == [0, 1, 2, 3]
    for index, sample in seen.items():
        new = banked(index)
        assert np.array_equal(sample.image, new.image.astype(np.float16))
        assert sample.labels is not None
        assert new.labels is not None
        assert np.array_equal(sample.labels, new.labels)


def test_the_package_offers_the_names_it_offered():
    old = {"__version__", "fill_bank", "live_bank", "mix", "mix_batches", "replay"}
    assert old <= set(gansynth.__all__)
