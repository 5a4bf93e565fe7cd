"""What ``gansynth sample`` does with a run that draws label maps: those of images, as a data set.

The network that draws tissues of T1, or the tumour of all sequences (Shin et al. 2018, fig. 1a and
1c), asked about any images. Label maps are those that a chain would draw of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.composite_view import Labeller, viewed
from gansynth.conditions.base_source import open_base
from gansynth.errors import UsageFault
from gansynth.integrity import whole_folder, write_json_atomic
from gansynth.regrid import pick
from gansynth.reporting import Reporter
from gansynth.schema import Case, LabelArray, Sample
from gansynth.sheets import write_sheet
from gansynth.sources.base import CaseSource
from gansynth.sources.written import file_name, write_volume

if TYPE_CHECKING:
    from gansynth.run import Run

SHOWN = 32
"""Most cases on a sheet."""


def predict_cases(
    run: Run,
    source: CaseSource,
    out: Path,
    n: int | None,
    *,
    conditions: Mapping[str, Any] | None = None,
    sheet: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw the label map of each case, and write a data set that ``nifti:`` reads.

    ``images/CASE_0000.nii.gz`` (a file for each channel that the run is given, in its files' own
    units), ``labels/CASE.nii.gz`` on the same grid, ``dataset.json`` with the names of both. They
    lie as the case's own files do, where it has some.

    Args:
        run: a run that draws label maps.
        source: the run's own source; its training cases unless others are named.
        out: folder of the data set, not there yet.
        n: how many cases, the first ones; None for all.
        conditions: whose images instead, as in ``Asking``; they need no labels.
        sheet: also write ``sheet.png``: images, and label maps drawn of them.
        reporter: shows progress.

    Raises:
        UsageFault: another folder is there, or images that do not fit.
    """
    own = viewed(source, run.request.view)
    cases = own if conditions is None else open_base(conditions, own, labelled=False)
    ids = cases.train_ids[:n]
    labeller, shown = Labeller(run, cases.schema), list[tuple[Sample, Case]]()
    began = time.perf_counter()
    with whole_folder(out) as folder, reporter.task(len(ids), "label maps") as bar:
        for case_id in ids:
            case = cases.load(case_id)
            labels = labeller.draw(case, cases.schema)
            _write(cases, case, labels, folder)
            if sheet and len(shown) < SHOWN:
                shown.append((Sample(case.image, labels), case))
            bar.advance(1)
        write_json_atomic(folder / "dataset.json", _names(run, cases))
    seconds = time.perf_counter() - began
    report = {"folder": str(out), "samples": len(ids), "of": cases.name}
    report["seconds_per_sample"] = seconds / max(len(ids), 1)
    if sheet:
        report["sheet"] = str(_sheet(out / "sheet.png", shown, run, cases))
    return report


def refuse_options(run: Path, asked: Mapping[str, Any]) -> None:
    """Refuse what is asked of samples where label maps are drawn of images.

    Args:
        run: its folder.
        asked: option -> what was typed; nothing where it was not.

    Raises:
        UsageFault: naming the first option.
    """
    for option, value in asked.items():
        if value:
            raise UsageFault(
                f"{option}: {run} draws label maps of images, which stay as they are; expected "
                f"--conditions SOURCE, -n, -o and --sheet alone. Leave {option} out"
            )


def _write(source: CaseSource, case: Case, labels: LabelArray, folder: Path) -> None:
    """A case's image and label map, on its files' grid."""
    image, affine = source.stored(case.id)
    name, volume = file_name(case.id), labels if labels.ndim == 3 else labels[None]
    labels = pick(volume, image.shape[1:])
    write_volume(folder / "labels" / f"{name}.nii.gz", labels, affine)
    for number, channel in enumerate(image):
        write_volume(folder / "images" / f"{name}_{number:04d}.nii.gz", channel, affine)


def _names(run: Run, source: CaseSource) -> dict[str, Any]:
    """``dataset.json``: names, and what has drawn the label maps of what."""
    drawn_by = {"run": run.run_id, "manifest_sha256": run.manifest_sha256, "of": source.name}
    return {
        "channel_names": {str(i): name for i, name in enumerate(source.schema.channels)},
        "labels": dict(run.schema.labels),
        "drawn_by": drawn_by,
    }


def _sheet(path: Path, shown: Sequence[tuple[Sample, Case]], run: Run, source: CaseSource) -> Path:
    schema = replace(source.schema, labels=run.schema.labels)
    samples, cases = [sample for sample, _ in shown], [case for _, case in shown]
    return write_sheet(path, samples, cases, schema, given=source.schema.channels, drawn=True)
