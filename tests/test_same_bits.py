"""The same bits on any number of threads and any kind of CPU: the table of docs/reliability.md.

This file runs itself in two processes: as it is, and with one thread and an older CPU's kernels.
What need not be the same to the bit is held to the tolerance that a replay goes by.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth import mix
from gansynth.core.edit import EditContext
from gansynth.core.fingerprint import prints_of, same_looks
from gansynth.core.generator import generated
from gansynth.core.registry import installed
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample, content_hash
from gansynth.core.source import SourceRequest, case_content
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import sampler_for
from gansynth.sampling.sketch import TOLERANCE, Sketch
from gansynth.testing import ToySource
from tests.conditions.rooms import ball, case_context, make, schema
from tests.data import sets
from tests.plugins.toys import build

ROOT = Path(__file__).parents[1]
OLDER = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
}
ASKED: dict[str, dict[str, Any]] = {
    "shapes": {"edits": ("blob", "rotate")},
    "mixtures": {"edits": ("interpolate", "size")},
    "warps": {"edits": ("transplant", "elastic", "scale")},
    "carved": {"lesions": "add,mixing=carve,pairs=nearest"},
}
ARRAYS = ("labels", "lesion", "region", "body", "background", "donor", "moved", "context")
MODELS = ("copypaste", "elastic", "parametric")
MEASURES = ("counts", "histogram", "places", "spectrum")
GANS = ("cgan3d", "cgan3d-lesion", "dcgan")


def digest(*values: Any) -> str:
    """A hash of arrays' bytes, and of anything else as JSON."""
    found = hashlib.sha256()
    for value in values:
        array = isinstance(value, np.ndarray)
        found.update(value.tobytes() if array else json.dumps(value, sort_keys=True).encode())
    return found.hexdigest()


def sampler_of(name: str, dims: int, **asked: Any) -> tuple[Any, Any]:
    """A generator that has observed toy cases, and what draws its conditions."""
    toys = ToySource(dims)
    made = build(name, toys.space.size, toys.schema)
    made.learnt = made.observe([toys.load(case_id) for case_id in toys.train_ids])
    return made, sampler_for(made, toys, toys.space, SampleRequest(seed=1, **asked))


def conditions(name: str) -> str:
    """Cases, places, donors, edits and label maps."""
    _, sampler = sampler_of("copypaste", 3, prevalence=1.0, **ASKED[name])
    drawn = [sampler.draw(index) for index in range(3)]
    parts = [getattr(one, name) for one in drawn for name in ARRAYS]
    return digest(*[part for part in parts if part is not None], [one.provenance for one in drawn])


def ties(_: str) -> str:
    """The shape of balls, of which many voxels lie equally far from the middle."""
    drawn = []
    for radius, spacing in ((8.0, (1.0, 1.0, 1.0)), (4.0, (2.0, 1.0, 1.0))):
        names = schema(3, spacing)
        there = case_context(ball(radius, spacing), names)
        blob, context = make("blob", rough=0.0), EditContext(there.labels, names, there)
        drawn.append(blob.apply(context, blob.draw(context, np.random.default_rng(0))).labels)
    return digest(*drawn)


def samples(name: str, asked: Mapping[str, Any]) -> list[Sample]:
    made, sampler = sampler_of(name, 2 if name == "dcgan" else 3, **asked)
    made.precision = "fp32"  # auto is bf16 on a CPU that computes in it, and says so
    drawn = [sampler.draw(index) for index in range(3)]
    return generated(made, drawn, [condition.latent_seed for condition in drawn])


def modelled(name: str) -> str:
    lesions = {} if name == "elastic" else {"lesions": "add", "prevalence": 1.0}
    drawn = samples(name, lesions)
    return digest(*[one.image for one in drawn], *[one.labels for one in drawn])


def sketched(name: str) -> list[Any]:
    """What a record keeps of each sample of a network, and its image."""
    drawn = samples(name, {"lesions": "add", "prevalence": 1.0} if "lesion" in name else {})
    return [[str(Sketch.of(one)), one.image.tolist()] for one in drawn]


def guard(_: str) -> str:
    toys = ToySource(3, side=24)
    images = [toys.load(case_id).image for case_id in toys.train_ids[:6]]
    prints = [prints_of(image, (1.0, 0.9, 1.2)) for image in images]
    copies = [prints_of(np.flip(1.1 * image, -1), (1.0, 0.9, 1.2)) for image in images]
    return digest(prints, sorted(same_looks(prints, copies, 3).items()))


def mixing(_: str) -> str:
    data = mix(list(range(64)), ROOT / "tests/unchanged/bank", "1:1", as_item=lambda one: one.id)
    return digest([data[place] for place in range(64)])


def measures(name: str) -> dict[str, float]:
    """Numbers of an evaluation that need no trained network."""
    toys = ToySource(2)
    cases = [toys.load(case_id) for case_id in toys.train_ids]
    drawn = [Sample(1.01 * case.image, case.labels) for case in cases[:6]]
    return dict(installed().load("metrics", name)().measure(drawn, cases[6:], toys.schema))


def cases(asked: Mapping[str, Any]) -> dict[str, list[str]]:
    """Hashes of each case of a data set: of what its files hold, and of the arrays made of that."""
    source = open_source(SourceRequest(**asked))
    loaded = map(source.load, (*source.train_ids, *source.held_out_ids))
    return {
        case.id: [case_content(source, case.id), content_hash(case.image, case.labels)]
        for case in loaded
    }


ROWS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "guard": (guard, ("prints",)),
    "mixing": (mixing, ("plan",)),
    "ties": (ties, ("balls",)),
    "conditions": (conditions, tuple(ASKED)),
    "samples": (modelled, MODELS),
    "networks": (sketched, GANS),
    "measures": (measures, MEASURES),
}


EXACT = ("guard", "mixing", "ties", "conditions", "samples")


SOURCES = (*sets.KINDS, "nnunet", "nnunet-raw")


@pytest.fixture(scope="module")
def data(tmp_path_factory, toy_nnunet) -> dict[str, SourceRequest]:
    """A data set of each kind, on another grid than its files' where it can be read so."""
    asked = {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in sets.KINDS.items()}
    asked["nnunet"] = toy_nnunet.request()
    asked["nnunet-raw"] = SourceRequest("nnunet-raw", "501", root=str(toy_nnunet.root))
    return {
        kind: replace(request, read={**request.read, **sets.RESAMPLED.get(kind, {})})
        for kind, request in asked.items()
    }


@pytest.fixture(scope="module")
def both(data) -> list[dict[str, Any]]:
    """What each row makes here, and with the kernels of an older CPU."""
    given = json.dumps({kind: request.to_json() for kind, request in data.items()})
    clean = {key: value for key, value in os.environ.items() if key not in OLDER}
    line = [sys.executable, "-m", "tests.test_same_bits", given]
    ran = [
        subprocess.Popen(line, env=clean | more, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for more in ({"OMP_NUM_THREADS": "2"}, OLDER)
    ]
    said = [process.communicate()[0] for process in ran]
    return [json.loads(text) for text in said]


@pytest.mark.parametrize(
    ("row", "name"),
    [*((row, name) for row in EXACT for name in ROWS[row][1]), *(("cases", k) for k in SOURCES)],
)
def test_it_has_the_same_bits_on_an_older_cpu(row, name, both):
    here, older = both
    assert here[row][name] == older[row][name] != {}


@pytest.mark.parametrize("name", GANS)
def test_samples_of_networks_are_the_same_within_the_tolerance(name, both):
    for here, older in zip(*[each["networks"][name] for each in both], strict=True):
        known, image = Sketch.read(here[0]), np.array(older[1], np.float32)
        assert known.mark == Sketch.read(older[0]).mark
        assert known.off(Sample(image, None)) <= TOLERANCE
        assert np.abs(image - here[1]).max() <= TOLERANCE * image.std()


@pytest.mark.parametrize("name", MEASURES)
def test_numbers_of_an_evaluation_are_the_same_to_a_millionth(name, both):
    here, older = [each["measures"][name] for each in both]
    assert here == pytest.approx(older, rel=1e-6)


def test_the_older_cpu_is_another_one(both):
    """Else the rows above compare nothing: a product of matrices tells."""
    assert both[0]["kernels"] != both[1]["kernels"]


if __name__ == "__main__":
    wide = np.random.default_rng(0).normal(size=(64, 64))
    assert installed().names("edits")
    made: dict[str, Any] = {"kernels": digest(wide @ wide, np.exp(wide.astype(np.float32)))}
    for row, (run, of) in ROWS.items():
        made[row] = {name: run(name) for name in of}
    made["cases"] = {kind: cases(asked) for kind, asked in json.loads(sys.argv[1]).items()}
    print(json.dumps(made))
