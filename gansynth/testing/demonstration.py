"""End-to-end demo on phantoms: no data, no GPU, one to three minutes.

It uses the same functions as a user: make a data set, prepare it, and fit a generator on one fold.
Then it trains an unmodified nnU-Net with samples mixed in on the fly, and as long without samples.
Each step finds what it has made before, so the same command resumes a stopped demo.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.folds import EACH, table_text
from gansynth.hosts.contract.record import TrainingResult
from gansynth.runtime.child import limit_threads
from gansynth.runtime.devices import why_cpu
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import (
    read_json,
    remove,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.processes import end_family
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.testing.demo_request import DemoRequest

if TYPE_CHECKING:
    from gansynth.testing.phantoms import PhantomOptions

PHANTOM = (
    "These are phantoms: simulated brains with a simulated glioma. The Dice below shows that the "
    "software works from end to end. It proves nothing about patients or the use of synthetic "
    "samples."
)
PLANS = "gansynthSmallPlans"
DATASET, RAW = 999, "nnUNet_raw/Dataset999_Phantom"
MARKER = "DEMO.txt"  # file that marks a folder of a demo, and says of which
SUMMARY = "summary.json"  # the result; written last


@dataclass(frozen=True)
class DemoSize:
    """Amount of work of a demo."""

    spacing_mm: float  # isotropic voxel size of the phantoms
    channels: tuple[str, ...]
    configuration: str  # of nnU-Net, as its plans
    plans: Mapping[str, str]  # settings of its small plans
    fit: Mapping[str, str]  # settings of the generator's fit
    host: Mapping[str, str]  # settings of nnU-Net's trainings
    phantoms: int = 10  # number of cases; half of them are held out


SHORT = DemoSize(
    spacing_mm=3.0,
    channels=("T1c", "FLAIR"),
    configuration="2d",
    plans={"patch": "64,56", "batch_size": "4"},  # whole slices
    fit={
        "width": "12",
        "d_width": "12",
        "steps": "150",
        "batch_size": "8",
        "context": "8",
        "decay": "linear",
        "lr_generator": "0.001",  # with l1_lowpass: sharp after so few steps
        "l1_lowpass": "2",
    },
    host={
        "trainer": "nnUNetTrainerAdam",  # nnU-Net's own; learns more in so few steps
        "initial_lr": "0.01",
        "num_epochs": "3",
        "num_iterations_per_epoch": "70",
        "num_val_iterations_per_epoch": "2",
        "quick_validation": "yes",
        "save_every": "1",
    },
)
LONG = DemoSize(
    spacing_mm=2.5,
    channels=("T1", "T1c", "T2", "FLAIR"),
    configuration="3d_fullres",
    plans={},
    fit={
        "width": "12",
        "d_width": "12",
        "steps": "400",
        "sample_every": "100",
        "checkpoint_every": "100",
    },
    host={
        "num_epochs": "10",
        "num_iterations_per_epoch": "75",
        "num_val_iterations_per_epoch": "5",
        "quick_validation": "yes",
        "save_every": "1",
    },
)
BANK, REFRESH = 136, "3x"
"""Samples of the bank, and uses of each before it is replaced: too few for the warning of wear."""
ENDING_SECONDS = 10.0  # for a training to end that is stopped
SHOWN_SAMPLES, SHOWN_VOXELS = 4, 40
"""Samples in the first picture, each of another phantom, with so much tumour at least."""
SIMULATED = {
    "tissues": "healthy brains",
    "livers": "CT of livers with simulated lesions",
}
SUBJECTS = (6, 4.0), (15, 2.5)
"""Phantoms that ``--phantoms`` writes, and voxel size in mm; then the same with ``--long``."""
SUBJECTS_OF_SLICES = (6, 3.0), (20, 1.5)
"""Those of ``yolo``: slices of 64 x 64 or 128 x 128 pixels."""


def run_demonstration(request: DemoRequest) -> dict[str, Any]:
    """Run every step on phantoms, or write some: ``gansynth demo``.

    Returns:
        What ``--json`` prints: of ``run_demo`` or of ``write_set``.

    Raises:
        GansynthError: the folder holds something else, or a step failed.
    """
    reporter = request.reporter
    if request.phantoms is not None:
        return write_set(request, request.phantoms, reporter)
    why = why_cpu("auto")
    if why is not None:
        reporter.say(why)
    return run_demo(request, reporter)


demo = function_of(DemoRequest, run_demonstration, "demo")


def run_demo(request: DemoRequest, reporter: Reporter) -> dict[str, Any]:
    """Run the demo and write preview grid, overlays, curves and a summary to ``out``.

    The same demo in ``out`` is gone on with, or kept if it is finished.

    Returns:
        The summary: realised ratio, Dice on held-out phantoms with and without samples and their
        difference, seconds of this command, files.
    """
    from gansynth.fitting.fit import fit
    from gansynth.hosts.contract.session import Session
    from gansynth.hosts.data_sets.data_commands import prepare, splits
    from gansynth.sampling.run_source import open_source
    from gansynth.testing.phantoms import PhantomOptions

    began = time.perf_counter()
    installed().host("nnunet")  # says how to install it, if it is not
    out, seed, size = Path(request.out), request.seed, LONG if request.long else SHORT
    begun = _claim(request, asdict(size))
    if (out / SUMMARY).is_file():
        reporter.say(f"{out}: its demo is finished; to start over, add --force")
        return dict(read_json(out / SUMMARY))
    how = "goes on with the demo in it" if begun else "if it is stopped, the same command resumes"
    reporter.say(f"{out}: {how}")
    limit_threads("cpu")
    # One of nnU-Net's workers is enough for a few cases: each imports torch for seconds.
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    reporter.say(PHANTOM)
    root, run = out / "nnunet", out / "run"
    looks = PhantomOptions(spacing_mm=size.spacing_mm, channels=size.channels)
    raw = _phantoms("nnunet", root / RAW, size.phantoms, seed, looks, reporter)
    cases = SourceRequest("nnunet", str(DATASET), root=str(root), subjects=EACH)
    small = {"small": "yes", "plans_name": PLANS, "voxels": "1000000"}
    small.update(size.plans)
    data = f"{cases.kind}:{cases.where}"
    prepare(data, configuration=size.configuration, processes=1, root=str(root), set=small)
    splits(data, folds=2, seed=seed, root=str(root))
    cases = replace(cases, fold="0", configuration=size.configuration, plans=PLANS)

    def train(name: str, reporter: Reporter, **arm: Any) -> TrainingResult:
        settings = dict(size.host, results=str(out / "results" / name))
        training = AugmentRequest(target="nnunet", seed=seed, set=settings, **arm)
        return Session.of(training, open_source(cases), reporter).start()

    # It needs no generator, so it takes the second core while one is fitted.
    with _beside(lambda: train("without", NullReporter(), ratio="1:0")) as without:
        reporter.say("training nnU-Net without samples, beside what follows")
        settings = dict(size.fit, seed=str(seed))
        fitted = fit("cgan3d", cases, run, settings=settings, edits=None, reporter=reporter)
        reporter.say("training nnU-Net with samples")
        drawn = {"ratio": "1:1", "bank_size": BANK, "refresh": REFRESH}
        outcome = train("with", reporter, generator=run, **drawn)
        outcomes = {"with": outcome, "without": without.result()}
    source = open_source(cases)
    files = {
        "Slices of phantoms, real beside synthetic": _samples(run, seed, out / "samples.png"),
        "Truth and predictions of held-out phantoms": _overlays(
            source, raw, outcomes, out / "overlays.png"
        ),
        "Losses of the generator's training": run / "samples" / "curves.png",
    }
    document = {
        "note": PHANTOM,
        "training_cases": fitted["train_cases"],
        "held_out_cases": fitted["held_out_cases"],
        "gan_steps": fitted["steps"],
        "spectrum_ratio": fitted["spectrum_ratio"],
        "asked_synthetic_share": outcome.asked,
        "realised_synthetic_share": round(outcome.realised, 4),
        "drawn_real": outcome.drawn_real,
        "drawn_synthetic": outcome.drawn_synthetic,
        "fell_back": outcome.fell_back,
        "supply": dict(outcome.training_bank),
        "dice_on_held_out_phantoms": _compare(outcomes),
        "validation": {name: dict(each.metrics) for name, each in outcomes.items()},
        "seconds": round(time.perf_counter() - began, 1),
        "went_on": begun,
        "files": {name: str(path.relative_to(out)) for name, path in files.items()},
    }
    write_bytes_atomic(out / "summary.md", _markdown(document).encode())
    outcome.refuse_missing()
    write_json_atomic(out / SUMMARY, document)
    return document


@contextmanager
def _beside(train: Callable[[], TrainingResult]) -> Iterator[Future[TrainingResult]]:
    """Train in a thread beside a block of code; if that fails, end the training's process."""
    outcome = Future[TrainingResult]()

    def call() -> None:
        try:
            outcome.set_result(train())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=call, daemon=True).start()
    try:
        yield outcome
    except BaseException:
        end_family(ENDING_SECONDS, ask=True)  # else it meets the same command, typed at once
        raise


def _phantoms(
    kind: str, folder: Path, n: int, seed: int, looks: PhantomOptions, reporter: Reporter
) -> Path:
    """Write phantoms if they are not there, and return what opens them."""
    from gansynth.testing.phantoms import KINDS, write_phantoms

    if not folder.is_dir():
        with reporter.task(n, "phantoms") as bar:
            write_phantoms(kind, folder, n, seed, looks, bar.advance)
    return folder / KINDS[kind].opens


def write_set(request: DemoRequest, kind: str, reporter: Reporter) -> dict[str, Any]:
    """Write only phantoms, more and finer ones if ``long``.

    Returns:
        What they are, how many, where, and a command to run on them.
    """
    from gansynth.testing.phantoms import KINDS

    out = Path(request.out)
    short, long = SUBJECTS_OF_SLICES if kind == "yolo" else SUBJECTS
    subjects, mm = long if request.long else short
    channels = [name.strip() for name in (request.channels or "").split(",") if name]
    options = replace(
        KINDS[kind].options,
        spacing_mm=mm,
        channels=tuple(channels) or KINDS[kind].options.channels,
    )
    place = {"nnunet": f"nnunet/{RAW}", "deepmedic": "gliomas", "yolo": "gliomas"}.get(kind, kind)
    _claim(request, {"phantoms": kind, "subjects": subjects} | asdict(options))
    made = _phantoms(kind, out / place, subjects, request.seed, options, reporter)
    if kind == "nnunet":
        people = [(f"phantom_{n:03d}", f"sub-{n:03d}") for n in range(subjects)]
        table = out / place.replace("raw", "preprocessed") / "gansynth_subjects.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(table, table_text(("case", "subject"), people).encode())
    model = f"model={made.with_name('modelConfig.cfg')}"
    then = {
        "nnunet": ["prepare", f"nnunet:{DATASET}", "--root", f"{out / kind}", "--set", "small=yes"],
        "deepmedic": ["check", f"deepmedic:{made}", "--read", model],
        "yolo": ["check", f"yolo:{made}", "--subjects", "(sub-[0-9]+)_"],
    }.get(kind, ["check", f"nifti:{made}"])
    simulated = SIMULATED.get(kind, "brains with simulated gliomas")
    return {
        "note": f"These are phantoms, simulated {simulated}; no patient is in them.",
        "subjects": subjects,
        "data": str(made),
        "then": shlex.join(["gansynth", *then]),
    }


def _claim(request: DemoRequest, work: Mapping[str, Any]) -> bool:
    """Take a new folder, or that of the same demo, and return whether that was begun before.

    ``force`` removes an earlier demo first, never anything else.
    """
    out = Path(request.out)
    settings = json.dumps({"seed": request.seed} | dict(work), indent=2)
    marker, text = out / MARKER, f"{PHANTOM}\n\n{settings}\n"
    if request.force and marker.is_file():
        remove(out)
    if marker.is_file() and marker.read_text("utf-8") == text:
        return True
    if out.exists() and any(out.iterdir()):
        what, hint = "is not empty, expected a new folder", "choose another"
        if marker.is_file():
            what = f"holds a demo of other settings, see {marker}, expected the same or none"
            hint = "choose another folder, or add --force to replace it"
        raise UsageFault("testing.demonstration-folder-not-empty", f"-o {out}: {what}; {hint}")
    out.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(marker, text.encode())
    return False


def _compare(outcomes: Mapping[str, TrainingResult]) -> dict[str, Any]:
    """Return the Dice of the tumour with and without samples, paired by held-out phantom."""
    import numpy as np

    from gansynth.hosts.contract.host import Framework
    from gansynth.metrics.statistics import RunValues, compare

    values = {}
    for name, outcome in outcomes.items():
        subjects = read_json(outcome.folder / Framework.own_metrics)["per_subject"]
        dice = [of["dice"]["foreground"] for of in subjects.values()]
        values[name] = RunValues(np.array([dice], np.float64), (0,), (0,), tuple(subjects))
    found = compare(values["with"], values["without"], margin=0.01).to_json()
    keys = ("difference", "interval", "mean_arm", "mean_control", "subjects")
    return {key: found[key] for key in keys}


def _samples(run: Path, seed: int, path: Path) -> Path:
    """Draw samples with a tumour beside the real cases of their label maps."""
    from gansynth.sampling.loaded_run import load
    from gansynth.sampling.sample import write_sheet

    sampler = load(run).sampler(seed=seed + 1)
    one_each = {}
    for index in range(8 * SHOWN_SAMPLES):
        [sample] = sampler.draw(index, 1)
        if sample.labels is not None and (sample.labels > 0).sum() > SHOWN_VOXELS:
            one_each[sample.provenance["case"]] = sample
    return write_sheet(path, sampler, list(one_each.values())[:SHOWN_SAMPLES])


def _overlays(
    source: CaseSource, raw: Path, results: Mapping[str, TrainingResult], path: Path
) -> Path:
    """Draw truth and predictions of held-out phantoms on the FLAIR channel."""
    import nibabel as nib
    import numpy as np

    from gansynth.report.image_grid import write_overlays

    def axial(file: Path) -> Any:
        """Read a volume of a phantom as axial slices: (z, y, x)."""
        image: Any = nib.load(file)
        return np.asanyarray(image.dataobj).transpose(2, 1, 0)

    folders = {"truth": raw / "labelsTr"}
    for name, result in results.items():
        folders[f"{name} samples"] = result.folder / "validation"
    flair, cases = len(source.schema.channels) - 1, []
    for name in source.held_out_ids[:4]:
        image = axial(raw / "imagesTr" / f"{name}_{flair:04d}.nii.gz").astype(np.float32)
        maps = {n: axial(f / f"{name}.nii.gz").astype(np.int16) for n, f in folders.items()}
        cases.append((name.removeprefix("phantom_"), image[None], maps))
    schema = replace(source.schema, channels=source.schema.channels[flair:])
    return write_overlays(path, cases, schema, oriented=True)


def facts_of_demo(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on the fit, the samples and the Dice."""
    cases, held_out = document["training_cases"], document["held_out_cases"]
    steps = document["gan_steps"]
    yield f"generator: fitted on {cases} phantoms, {held_out} held out, {steps} steps"
    keys = ("realised_synthetic_share", "asked_synthetic_share")
    shares = [f"{document[key]:.1%}" for key in keys if document[key] is not None]
    drawn = f"{document['drawn_real']} real, {document['drawn_synthetic']} synthetic samples"
    yield f"nnU-Net: {drawn} ({', asked for '.join(shares)}), and as many steps without samples"
    found = document["dice_on_held_out_phantoms"]
    means = f"{found['mean_arm']:.2f} with samples, {found['mean_control']:.2f} without"
    where = f"{found['subjects']} held-out phantoms, predicted without mirroring"
    yield f"Dice of the tumour on {where}: {means}"
    low, high = found["interval"]["low"], found["interval"]["high"]
    difference = f"difference: {found['difference']:+.3f}"
    if low is None:
        yield f"{difference}; one training each, so no interval: other trainings may turn it round"
        return
    interval = f"95 % interval over phantoms {low:+.3f} to {high:+.3f}"
    yield f"{difference}, {interval}; of one training each, and others may turn it round"


def _markdown(document: Mapping[str, Any]) -> str:
    facts = [f"- {line}" for line in (*facts_of_demo(document), "all numbers: `summary.json`")]
    first, *others = [f"## {name}\n\n![{name}]({f})\n" for name, f in document["files"].items()]
    return "\n".join(["# gansynth demo", "", first, document["note"], "", *facts, "", *others])
