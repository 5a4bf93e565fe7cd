"""End-to-end demo on phantoms: no data, no GPU, a few minutes.

It uses the same functions as a user: make a data set, prepare it, and fit a generator on one fold.
Then it trains an unmodified nnU-Net with samples mixed in on the fly, and shows the results.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.adapter import MixConfig, PrepareRequest, TrainingResult
from gansynth.core.bank_options import BankSize
from gansynth.core.host_commands import TrainingRequest
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_bytes_atomic, write_json_atomic
from gansynth.runtime.progress import Reporter

PHANTOM = (
    "These are phantoms: simulated brains with a simulated glioma. The Dice below shows that the "
    "software works from end to end. It proves nothing about patients or the use of synthetic "
    "samples."
)
PLANS = "gansynthSmallPlans"
DATASET = 999
MARKER = "DEMO.txt"  # file that marks a folder of a demo, which a demo may replace


@dataclass(frozen=True)
class DemoSize:
    """Amount of work of a demo."""

    phantoms: int  # number of cases; a fifth of them is held out
    spacing_mm: float  # isotropic voxel size of the phantoms
    fit: Mapping[str, str]  # settings of the generator's fit
    host: Mapping[str, str]  # settings of nnU-Net's training


_NETWORK = {"width": "12", "d_width": "12", "levels": "4"}
FULL = DemoSize(
    phantoms=15,
    spacing_mm=2.5,
    fit={**_NETWORK, "steps": "400", "sample_every": "100", "checkpoint_every": "100"},
    host={
        "num_epochs": "10",
        "num_iterations_per_epoch": "75",
        "num_val_iterations_per_epoch": "5",
    },
)
FAST = DemoSize(
    phantoms=6,
    spacing_mm=4.0,
    fit={**_NETWORK, "steps": "4", "sample_every": "4", "checkpoint_every": "4"},
    host={"num_epochs": "1", "num_iterations_per_epoch": "8", "num_val_iterations_per_epoch": "2"},
)
FOLDERS = {
    "brats": "These are phantoms, simulated brains with simulated gliomas; no patient is in them.",
    "tissues": "These are phantoms, simulated healthy brains; no patient is in them.",
    "livers": "These are phantoms, simulated CT of livers with simulated lesions; no patient is in "
    "them.",
}
"""Notes on phantoms for ``nifti:``, by kind."""
OF_TUMOURS = "These are phantoms, simulated brains with simulated tumours; no patient is in them."
MANY, FEW = (20, 1.5), (6, 3.0)
"""Subjects with metastases, and voxel size in mm: slices of 128 x 128 or 64 x 64 pixels."""


def run_demo(
    out: Path, *, size: DemoSize = FULL, seed: int = 0, force: bool = False, reporter: Reporter
) -> dict[str, Any]:
    """Run the demo and write preview grid, overlays, curves and a summary to ``out``, a new folder.

    ``force`` replaces an earlier demo in ``out``, never anything else.

    Returns:
        The summary: realised ratio, validation Dice on held-out phantoms, seconds per part, files.
    """
    _claim(out, force)
    # One of nnU-Net's workers is enough for a few cases: each imports torch for seconds.
    os.environ.setdefault("nnUNet_def_n_proc", "1")
    seconds: dict[str, float] = {}
    reporter.say(PHANTOM)
    root = out / "nnunet"
    with _timed(seconds, "phantoms"):
        _make_phantoms(root, size, seed, reporter)
    request = SourceRequest(
        "nnunet", str(DATASET), fold="0", configuration="3d_fullres", plans=PLANS, root=str(root)
    )
    with _timed(seconds, "prepare"):
        _prepare(request, reporter)
    with _timed(seconds, "fit"):
        fitted = _fit(request, out / "run", size, seed, reporter)
    with _timed(seconds, "augment"):
        outcome = _augment(request, out / "run", size, seed, reporter)
    with _timed(seconds, "pictures"):
        files = _pictures(request, out, outcome, seed, reporter)
    document = _summary(fitted, outcome, seconds, files)
    write_json_atomic(out / "summary.json", document)
    write_bytes_atomic(out / "summary.md", _markdown(document).encode())
    outcome.refuse_missing()
    return document


def write_phantoms(
    out: Path,
    kind: str,
    *,
    fast: bool,
    seed: int,
    force: bool,
    channels: Sequence[str] = (),
    reporter: Reporter,
) -> dict[str, Any]:
    """Write only phantoms, few and coarse ones if ``fast``; other arguments as in ``run_demo``.

    Args:
        kind: ``nnunet``, ``deepmedic`` or ``yolo`` for that host; ``brats``, ``tissues`` or
            ``livers`` for ``nifti:``.
        channels: sequences for ``deepmedic``.

    Returns:
        Their location, and a command to run on them.

    Raises:
        UsageFault: ``out`` holds other files, or a sequence is unknown.
    """
    from gansynth.testing import phantoms

    _claim(out, force)
    size = FAST if fast else FULL
    subjects, mm = (FEW if fast else MANY) if kind == "yolo" else (size.phantoms, size.spacing_mm)

    def write(writer: Callable[..., Path], folder: Path, options: Any) -> Path:
        with reporter.task(subjects, "phantoms") as bar:
            step = lambda done, total: bar.advance(1)  # noqa: E731
            return writer(folder, subjects, seed, options, progress=step)

    document: dict[str, Any] = {"note": FOLDERS.get(kind, OF_TUMOURS), "subjects": subjects}
    body = partial(phantoms.PhantomOptions, spacing_mm=mm)
    if kind == "nnunet":
        _make_phantoms(out / kind, size, seed, reporter)
        then = f"gansynth prepare nnunet:{DATASET} --root {out / kind} --set small=yes"
        return {**document, "folder": str(out / kind), "then": then}
    if kind == "deepmedic":
        options = body(channels=tuple(channels) or ("FLAIR", "T1c"))
        file = write(phantoms.write_deepmedic, out / "gliomas", options)
        model = file.with_name("modelConfig.cfg")
        then = f"gansynth check deepmedic:{file} --read model={model}"
        return {**document, "data": str(file), "then": then}
    if kind == "yolo":
        folder = out / "metastases"
        metastases = phantoms.MetastasisOptions(body(channels=("T1c",)))
        file = write(phantoms.write_yolo, folder, metastases)
        splits = json.loads((folder / "phantoms.json").read_text("utf-8"))["splits"]
        then = f"gansynth check yolo:{file}"
        return {**document, "splits": splits, "data": str(file), "then": then}
    if kind == "livers":
        write(phantoms.write_livers, out / kind, phantoms.LiverOptions((4.0, mm, mm)))
    elif kind == "tissues":
        write(phantoms.write_tissues, out / kind, body(channels=("T1",)))
    else:
        write(phantoms.write_gliomas, out / kind, body())
    data = f"nifti:{out / kind}"
    return {**document, "data": data, "then": f"gansynth check {data}"}


def _claim(out: Path, force: bool) -> None:
    """Create a new folder, or with ``force`` replace an earlier demo."""
    if force and (out / MARKER).is_file():
        shutil.rmtree(out)
    if out.exists() and any(out.iterdir()):
        hint = "add --force to replace it" if (out / MARKER).is_file() else "choose another"
        raise UsageFault(f"-o {out}: is not empty, expected a new folder; {hint}")
    out.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(out / MARKER, PHANTOM.encode())


def _make_phantoms(root: Path, size: DemoSize, seed: int, reporter: Reporter) -> None:
    from gansynth.testing.phantoms import PhantomOptions, write_nnunet_raw

    options = PhantomOptions(spacing_mm=size.spacing_mm)
    with reporter.task(size.phantoms, "phantoms") as bar:
        step = lambda done, total: bar.advance(1)  # noqa: E731
        write_nnunet_raw(root / "nnUNet_raw", size.phantoms, seed, options, DATASET, progress=step)


def _prepare(request: SourceRequest, reporter: Reporter) -> None:
    from gansynth.core.registry import installed

    source = SourceRequest(request.kind, request.where, root=request.root)
    small = {"small": "yes", "plans_name": PLANS, "voxels": "1000000"}
    options = PrepareRequest(source, (), small, processes=1, force=False, reporter=reporter)
    installed().adapter(request.kind).prepare(options)


def _fit(
    request: SourceRequest, run: Path, size: DemoSize, seed: int, reporter: Reporter
) -> dict[str, Any]:
    from gansynth.fitting.fit import fit

    settings = {**size.fit, "seed": str(seed)}
    return fit("cgan3d", request, run, settings=settings, edits=None, reporter=reporter)


def _augment(
    request: SourceRequest, run: Path, size: DemoSize, seed: int, reporter: Reporter
) -> TrainingResult:
    from gansynth.core.registry import installed
    from gansynth.sampling.run_source import open_source

    reporter.say("training nnU-Net, half of its samples synthetic")
    adapter = installed().adapter("nnunet")(open_source(request))
    adapter.validate()
    mix_config = MixConfig(
        *(RunFolder(run), Ratio(1, 1)), size=BankSize(samples=16), samples=SampleRequest(seed)
    )
    return adapter.start(TrainingRequest(mix_config, size.host, (), reporter))


def _pictures(
    request: SourceRequest, out: Path, outcome: TrainingResult, seed: int, reporter: Reporter
) -> dict[str, str]:
    from gansynth.sampling.sample import sample_run

    report = sample_run(
        out / "run",
        8,
        out=out / "samples",
        sheet=True,
        request=SampleRequest(seed + 1),
        reporter=reporter,
    )
    overlays = _overlays(request, outcome, out / "overlays.png")
    files = {
        "sample sheet": Path(report["sheet"]),
        "overlays": overlays,
        "GAN curves": out / "run" / "samples" / "curves.png",
    }
    progress = outcome.folder / "progress.png"
    if progress.is_file():
        files["nnU-Net curves"] = out / "nnunet_curves.png"
        write_bytes_atomic(files["nnU-Net curves"], progress.read_bytes())
    return {name: str(path.relative_to(out)) for name, path in files.items()}


def _overlays(request: SourceRequest, outcome: TrainingResult, path: Path) -> Path:
    """Draw truth and prediction of held-out phantoms on the FLAIR channel."""
    import nibabel as nib
    import numpy as np

    from gansynth.report.image_grid import write_overlays
    from gansynth.sampling.run_source import open_source

    assert request.root is not None
    schema = open_source(request).schema
    raw = next((Path(request.root) / "nnUNet_raw").glob(f"Dataset{DATASET}_*"))
    cases = []
    for predicted in sorted((outcome.folder / "validation").glob("*.nii.gz"))[:4]:
        name = predicted.name.removesuffix(".nii.gz")
        files = sorted((raw / "imagesTr").glob(f"{name}_????.nii.gz"))
        image = np.stack([_axial(nib.load(f)) for f in files]).astype(np.float32)
        truth = _axial(nib.load(raw / "labelsTr" / predicted.name)).astype(np.int16)
        cases.append((name, image, truth, _axial(nib.load(predicted)).astype(np.int16)))
    return write_overlays(path, cases, schema, channel=len(schema.channels) - 1)


def _axial(image: Any) -> Any:
    """Return a NIfTI volume (x, y, z) as axial slices, front up: (z, y, x)."""
    import numpy as np

    return np.asanyarray(image.dataobj).transpose(2, 1, 0)[:, ::-1]


def _summary(
    fitted: Mapping[str, Any],
    outcome: TrainingResult,
    seconds: Mapping[str, float],
    files: Mapping[str, str],
) -> dict[str, Any]:
    return {
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
        "validation_on_held_out_phantoms": dict(outcome.metrics),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "files": dict(files),
    }


def facts_of_demo(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on the fit, the samples and the Dice."""
    cases, held = document["training_cases"], document["held_out_cases"]
    fitted = f"{cases} phantom{'s' * (cases != 1)}, {held} held out"
    yield f"generator: fitted on {fitted}, {document['gan_steps']} steps"
    keys = ("realised_synthetic_share", "asked_synthetic_share")
    shares = [f"{document[key]:.1%}" for key in keys if document[key] is not None]
    drawn = f"{document['drawn_real']} real, {document['drawn_synthetic']} synthetic samples"
    yield f"nnU-Net: {drawn} ({', asked for '.join(shares)})"
    overlap = (document["validation_on_held_out_phantoms"].get("dice") or {}).get("foreground")
    yield f"Dice of the tumour on held-out phantoms: {'-' if overlap is None else f'{overlap:.2f}'}"


def _markdown(document: Mapping[str, Any]) -> str:
    facts = [f"- {line}" for line in (*facts_of_demo(document), "all numbers: `summary.json`")]
    images = [f"## {name}\n\n![{name}]({file})\n" for name, file in document["files"].items()]
    return "\n".join(["# gansynth demo", "", document["note"], "", *facts, "", *images])


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - began
