"""What many tests share: a tiny data set that nnU-Net itself preprocessed, a run, ``run_cli``."""

import contextlib
import functools
import gc
import hashlib
import json
import locale
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.metadata import distributions, requires
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from packaging.requirements import Requirement

from gansynth.core.registry import installed
from gansynth.core.requests.hosts import PrepareRequest
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.hosts.data_sets.data_commands import report_preparation
from gansynth.runtime.progress import NullReporter
from tests.mixtures import example, toy_bank  # noqa: F401  # fixtures
from tests.pretend_cuda.environment import PRETENDS
from tests.progress import Progress
from tests.reference import unchanged  # noqa: F401  # a fixture
from tests.systems import lacked

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
DATA = Path(__file__).parents[1] / "../shared/data"

KEPT = "gansynth_"  # what folders begin with that hold what is kept of cases
CASES = ("p1_left", "p1_right", "p2_left", "p2_right", "p3_left", "p3_right")
SHAPE = (24, 28, 24)
CONFIGURATIONS = ("3d_fullres", "2d")

LONGEST = (
    "test_tutorials",
    "pretend_cuda/test_run",
    "test_examples",
    "pretend_cuda/test_run_hosts",
    "test_extras",
    "test_wheels",
    "test_site",
    "adapters/test_conformance_training",
    "adapters/test_conformance",
    "test_same_bits",
    "test_doors",
    "core/test_guard",
    "cli/test_next",
    "cli/test_unlabelled",
    "cli/test_data",
    "adapters/deepmedic/test_training",
    "plugins/test_conformance",
    "adapters/nnunet/test_ways_out",
    "data/test_nifti_check",
    "sampling/test_sampler",
    "evaluation/test_evaluation",
    "benchmark/test_end_to_end",
    "sampling/test_sample_check",
    "conditions/test_lesions",
    "core/test_case_store",
    "adapters/yolo/test_detectors",
    "test_packaging",
    "fitting/test_paper_chains",
    "adapters/nnunet/test_trainer",
    "testing/test_phantom_sets",
    "hosts/test_segments",
    "adapters/yolo/test_bad_input",
    "metrics/test_conformance",
)
"""Files that take more than some seven seconds, the longest first."""


def pytest_addoption(parser):
    parser.addoption("--progress", action="store_true", help="a line of progress instead of dots")


def pytest_configure(config):
    if config.getoption("--progress") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


gc.disable()  # nothing that imports make is garbage, and a search takes a fifth of their time


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that none is left for the end alone."""
    ranks = {f"tests/{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


def pytest_pycollect_makemodule(module_path, parent):
    """Skip a file that names what this operating system has not, and say which part that is."""
    return _Elsewhere.from_parent(parent, path=module_path) if lacked(module_path) else None


class _Elsewhere(pytest.Module):
    def collect(self):
        pytest.skip(f"this system has no {', '.join(lacked(self.path))}", allow_module_level=True)


def pytest_runtest_setup(item):
    """Skip what this machine cannot run."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")
    if item.get_closest_marker("pretend_cuda") and not PRETENDS:
        pytest.skip("tests/pretend_cuda/test_run.py runs it")
    if item.get_closest_marker("deepmedic") and not os.environ.get("GANSYNTH_DEEPMEDIC"):
        pytest.skip("GANSYNTH_DEEPMEDIC names no checkout of DeepMedic")
    if item.get_closest_marker("data") and not DATA.is_dir():
        pytest.skip("the real data sets are not in ../shared/data")
    for marker in item.iter_markers("extra"):
        if missing := [name for name in packages_of(marker.args[0]) if not is_installed(name)]:
            pytest.skip(f"needs the extra {marker.args[0]}: {', '.join(missing)}")


def packages_of(extra: str) -> list[str]:
    """Packages that an extra of gansynth asks for itself; those of the core for ``""``."""
    wanted = map(Requirement, requires("gansynth") or ())
    asked = [one for one in wanted if bool(one.marker) == bool(extra)]
    return [one.name for one in asked if not one.marker or one.marker.evaluate({"extra": extra})]


def is_installed(package: str) -> bool:
    return any(distributions(name=package))


@dataclass(frozen=True)
class Toy:
    """Where the toy data set is.

    `root` holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results. Six cases of three people, two
    channels; the second is a picture of the labels. Outside the body images are 0 and labels -1.
    """

    root: Path
    dataset: str = "Dataset501_Toy"
    plans: str = "gansynthSmallPlans"

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.dataset

    def request(self, **changes) -> SourceRequest:
        """nnunet:501, 3d_fullres, small plans, fold 0."""
        asked = {"configuration": "3d_fullres", "plans": self.plans, "root": str(self.root)}
        return SourceRequest("nnunet", "501", **{**asked, **changes})

    @property
    def options(self) -> tuple[str, ...]:
        """What ``request`` says, as a user types it."""
        return (
            *("--data", "nnunet:501", "-c", "3d_fullres", "--plans", self.plans),
            *("--root", str(self.root)),
        )


def toy_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (2, X, Y, Z) float32 and labels (X, Y, Z) uint8 of one case."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    middle = np.array(SHAPE) / 2 - 0.5

    def ball(centre: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
        return np.asarray((((grid - centre) / radius) ** 2).sum(-1) <= 1)

    body = ball(middle, np.array((9, 11, 9)) + rng.uniform(-1, 1, 3))
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball(middle - [3, 0, 0] + rng.uniform(-1, 1, 3), rng.uniform(3, 4))] = 1
    labels[ball(middle - [-3, -2, 0] + rng.uniform(-1, 1, 3), rng.uniform(2.5, 3.5))] = 2
    labels[~body] = 0
    image = rng.normal((100, 20), (15, 3), (*SHAPE, 2)).clip(1).transpose(3, 0, 1, 2)
    image[1] += 40.0 * labels
    return (image * body).astype(np.float32), labels


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def write_raw(folder: Path) -> None:
    from gansynth.runtime.files import write_json_atomic

    rng = np.random.default_rng(0)
    for case in CASES:
        image, labels = toy_case(rng)
        for channel in range(2):
            save_nifti(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image[channel])
        save_nifti(folder / "labelsTr" / f"{case}.nii.gz", labels)
    document = {
        "name": "Toy",
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    write_json_atomic(folder / "dataset.json", document)


@contextlib.contextmanager
def shortcuts():
    """Let nnU-Net work in threads, each of its processes would import torch for seconds; and draw
    fewer than a hundred million voxels for its intensity statistics.
    """
    import nnunetv2.utilities.utils
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    extractor = fingerprint_extractor.DatasetFingerprintExtractor
    start = extractor.__init__

    def start_modestly(self, *args, **kwargs):
        start(self, *args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = 1e5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "__init__", start_modestly)
        threads = SimpleNamespace(Pool=ThreadPool)
        patch.setattr(multiprocessing, "get_context", lambda method=None: threads)
        patch.setattr(nnunetv2.utilities.utils, "Pool", ThreadPool)
        yield


SMALL: dict[str, Any] = {"small": "yes", "features": "4,8,8"}


def prepare(
    request: SourceRequest,
    configurations: Sequence[str],
    processes: int = 2,
    force: bool = False,
    quiet: bool = True,
    **settings: str,
) -> Mapping[str, Any]:
    """What ``gansynth prepare`` does, and its report."""
    words = {"plans": request.plans, "subjects": request.subjects, "root": request.root}
    how: dict[str, Any] = {"processes": processes, "force": force, "set": settings, **words}
    data = f"nnunet:{request.where}"
    asked = PrepareRequest(data=data, configuration=configurations, quiet=quiet, **how)
    return report_preparation(asked).document


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What is kept of cases lies with the tests, and lines are as long as they are."""
    os.environ["GANSYNTH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("COLUMNS", None)  # what is printed here is no terminal's


@pytest.fixture(autouse=True)
def _same_locale():
    """A library that sets the process's locale would have the next tests read texts as ASCII."""
    own = locale.setlocale(locale.LC_CTYPE)
    yield
    left = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, own)
    assert left == own, "the test leaves the process another locale: let `asked` call ITK"


@pytest.fixture(scope="session")
def toy_nnunet(tmp_path_factory) -> Toy:
    """The toy data set, preprocessed for 3d_fullres and 2d, with small plans. Do not change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    toy = Toy(shared / "toy_nnunet")
    with filelock.FileLock(shared / "toy_nnunet.lock"):
        if not (toy.root / "done").exists():
            write_raw(toy.raw)
            with shortcuts():
                prepare(toy.request(plans=None), CONFIGURATIONS, processes=1, **SMALL)
            (toy.root / "nnUNet_results").mkdir()
            (toy.root / "done").touch()
    return toy


FIT = ("--device", "cpu", *(f"--set={o}" for o in ("width=4", "d_width=4", "levels=2")))


@pytest.fixture(scope="session")
def fitted(toy_nnunet) -> Path:
    """A run of ``cgan3d`` on fold 0 of the toy data set, two steps long. Do not change it."""
    from gansynth_cli.main import cli

    run: Path = toy_nnunet.root.with_name("toy_run")
    with filelock.FileLock(run.with_suffix(".lock")):
        if not run.exists():
            cli.main(
                ["fit", "cgan3d", *toy_nnunet.options, "-o", str(run), *FIT, "--set=steps=2", "-q"],
                standalone_mode=False,
            )
    return run


@pytest.fixture
def cheap_nnunet():
    """Whatever nnU-Net plans and preprocesses in this test, it does so without processes."""
    with shortcuts():
        yield


@pytest.fixture
def toy_copy(toy_nnunet, tmp_path) -> Toy:
    """A copy of the toy data set that a test may change."""
    shutil.copytree(toy_nnunet.root, tmp_path / "toy")
    return Toy(tmp_path / "toy")


def crop_samples(intake, n: int, seed: int = 0):
    """Pairs of sample and host arrays: training crops with noise on them, in the host's space."""
    from gansynth.core.schema import Sample
    from gansynth.sampling.deidentify import REPEATED

    rng = np.random.default_rng(seed)
    source, pairs = intake.source, []
    for index in range(n):
        case = source.load(source.train_ids[index % len(source.train_ids)])
        placed = source.space.to_generator(case, source.space.place(case, rng))
        noise = rng.normal(0, 0.05, placed.image.shape).astype(np.float32)
        sample = Sample(
            placed.image + noise, placed.labels, provenance={"case": case.id, REPEATED: 0.0}
        )
        sample = source.space.to_host(sample)
        pairs.append((sample, intake.finalise(sample)))
    return pairs


@pytest.fixture
def frozen_bank(toy_nnunet, tmp_path):
    """Makes a frozen bank of training crops, as a generator would fill it: ``frozen_bank()``."""
    from gansynth_nnunet.intake import NnunetIntake
    from gansynth_nnunet.source import NnunetSource
    from tests.banks import write_bank

    def make(name="bank", samples=6, **changes):
        intake = NnunetIntake(NnunetSource(toy_nnunet.request(**changes)), "nnunet")
        pairs = crop_samples(intake, samples)
        return write_bank(tmp_path / name, intake.schema, lineage_of(intake.source), pairs)

    return make


@pytest.fixture(scope="session", autouse=True)
def _tiny_fits():
    """Tiny fits leave out sheets and reports, which take longer; those of ``whole_fits`` are small.

    Nobody waits for the disk: no test cuts the power. No dry run begins a training to time it.
    """
    few: dict[str, int] = {
        **{f"fitting.{name}.COLUMNS": 2 for name in ("sample_grids", "composite_fit")},
        **{"fitting.sample_grids.SHOWN_SAMPLES": 2},
        **{"fitting.fit.SPECTRUM_SAMPLES": 4, "fitting.label_report.SAMPLES": 8},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, number in few.items():
            patch.setattr(f"gansynth.{name}", number)
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr("gansynth.hosts.deciding.dry_run.pace_of", lambda *_: {})
        with fits_that_show(False):
            yield


@pytest.fixture(scope="session", autouse=True)
def _fingerprints_once():
    """Fingerprints are computed and compared once: commands read the same few cases again."""
    from gansynth.core import fingerprint

    def content(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return hashlib.sha256(part.tobytes()).digest(), part.shape, part.dtype
        return tuple(map(content, part)) if isinstance(part, list | tuple) else part

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[Any, Any] = {}

        def found(*given: Any, **named: Any) -> Any:
            key = content([*given, *named.items()])
            if key not in known:
                known[key] = function(*given, **named)
            return copy(known[key])

        return found

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_print", "landmarks", "sharing", "alike"):
            patch.setattr(fingerprint, name, once(getattr(fingerprint, name)))
        yield


@pytest.fixture
def run_cli(monkeypatch) -> Callable[..., Result]:
    """Runs the command line in this process; ``result.stdout`` and ``.stderr`` are apart."""
    from gansynth_cli.main import cli

    monkeypatch.setenv("NO_COLOR", "1")

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments])

    return invoke


@pytest.fixture
def succeed(run_cli) -> Callable[..., Result]:
    """Runs a command that must succeed."""

    def invoke(*arguments: object) -> Result:
        result: Result = run_cli(*arguments)
        assert result.exit_code == 0, result.stderr
        return result

    return invoke


@pytest.fixture
def run_json(succeed) -> Callable[..., Any]:
    """Runs a command with ``--json``, which must succeed, and reads its one document."""
    return lambda *arguments: json.loads(succeed(*arguments, "--json").stdout)


# -- toy cases in memory ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_source():
    """Offers the source kind ``toy`` (``toy:3``, ``toy:2``) to one module's tests."""
    from gansynth.core.hookspecs import hookimpl
    from gansynth.testing import ToySource

    @hookimpl
    def register_sources(register):
        register("toy", lambda: lambda request: ToySource(int(request.where)))

    installed().add(SimpleNamespace(register_sources=register_sources), "toy_source")
    try:
        assert "toy_source" not in installed().broken, installed().broken
        yield
    finally:
        installed().remove("toy_source")


@pytest.fixture(scope="module")
def toy_fit(toy_source):
    """Fits a tiny ``cgan3d`` on 2D toy cases: ``toy_fit(out, steps=4)``; returns fit's report."""
    from gansynth.core.generator import capabilities_of
    from gansynth.fitting.fit import fit

    def run(out, *, data="2", generator="cgan3d", own=None, edits=("flip",), **changes):
        tiny = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1} if own is None else own
        loop = {"batch_size": 1, "precision": "fp32", "log_every": 1, "checkpoint_every": 2}
        passed = {k: changes.pop(k) for k in ("resume", "dry_run") if k in changes}
        reporter = changes.pop("reporter", NullReporter())
        trains = capabilities_of(installed().generator(generator)).trains
        values: dict[str, object] = {"steps": 4, **loop} if trains else {}
        values.update(tiny)
        values.update(changes)
        return fit(
            generator,
            SourceRequest("toy", data),
            out,
            settings={k: str(v) for k, v in values.items()},
            edits=edits,
            device="cpu",
            reporter=reporter,
            **passed,
        )

    return run


@functools.cache
def pictures() -> dict[str, Any]:
    """What a fit calls to show its samples."""
    from gansynth.fitting import fit

    names = "final_sheets", "report_label_maps", "spectrum", "write_run_report", "SampleGrid"
    return {name: getattr(fit, name) for name in names}


@contextlib.contextmanager
def fits_that_show(show: bool):
    """Let fits in this process draw their sheets and write their reports, or not."""
    with pytest.MonkeyPatch.context() as patch:
        for name, whole in pictures().items():
            alone = (lambda *_: lambda step: None) if name == "SampleGrid" else (lambda *_: {})
            patch.setattr(f"gansynth.fitting.fit.{name}", whole if show else alone)
        yield


@pytest.fixture(scope="module")
def whole_fits():
    """Fits in this module's tests draw their sheets and write their reports."""
    with fits_that_show(True):
        yield


@pytest.fixture(scope="module")
def unrendered():
    """Reports in this module's tests have empty figures, which take longer than small jobs."""
    with pytest.MonkeyPatch.context() as patch:
        for package in ("gansynth_benchmark", "gansynth_evaluate"):
            patch.setattr(f"{package}.report.figures.as_svg", lambda axes: "data:image/svg+xml,")
        yield


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, but of what is kept of cases."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not any(each.name.startswith(KEPT) for each in path.parents)
    }


def assert_one_line(code: int, stderr: str, expected: int, says: Iterable[str]) -> None:
    """The exit code, and as the last of stderr one line that says certain things; no traceback."""
    lines = stderr.splitlines()
    assert code == expected, stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], stderr
    assert "Traceback" not in stderr
    assert [words for words in says if words not in lines[-1]] == [], lines[-1]


@pytest.fixture
def refuse(run_cli) -> Callable[..., Result]:
    """Runs a command that must end in one line and an exit code, and leave folders as they are."""

    def invoke(
        *arguments: object, code: int, says: Iterable[str], keep: Iterable[Path] = ()
    ) -> Result:
        before = [content(folder) for folder in keep]
        result: Result = run_cli(*arguments)
        assert_one_line(result.exit_code, result.stderr, code, says)
        assert [content(folder) for folder in keep] == before
        return result

    return invoke


@pytest.fixture
def one_line() -> Callable[[int, str, int, Iterable[str]], None]:
    """``assert_one_line``, for commands that were run in another way."""
    return assert_one_line


HOLD = """
import sys
from pathlib import Path
from gansynth.sampling.manifest import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run folder, ``tmp_path / "run"``, that another process holds, and that process."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield tmp_path / "run", holder
        finally:
            holder.kill()
