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

from gansynth.conditions.external_source import open_base
from gansynth.core.resample import pick
from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.data.written import file_name
from gansynth.report.sheets import write_sheet
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import whole_folder
from gansynth.runtime.progress import Reporter
from gansynth.sampling.dataset_writer import DatasetWriter, made_by
from gansynth.sampling.drawn_labels import Labeller, viewed

if TYPE_CHECKING:
    from gansynth.sampling.run import Run

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
    anew: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw the label map of each case, and write a data set that ``nifti:`` reads.

    Images (the channels that the run is given, in their files' own units) and label maps lie as the
    case's own files do, where it has some.

    Args:
        n: how many cases, the first ones; None for all.
        conditions: whose images instead, as in ``SampleRequest``; they need no labels.

    Raises:
        UsageFault: another folder is there, or images that do not fit.
    """
    own = viewed(source, run.request.view)
    cases = own if conditions is None else open_base(conditions, own, labelled=False)
    ids = cases.train_ids[:n]
    labeller, shown = Labeller(run, cases.schema), list[tuple[Sample, Case]]()
    began = time.perf_counter()
    schema = replace(cases.schema, labels=run.schema.labels)
    made = {"drawn_by": made_by(run, cases)["drawn_by"]}
    with whole_folder(out, anew=anew) as folder, reporter.task(len(ids), "label maps") as bar:
        writer = DatasetWriter(folder, schema, made, synthetic=False)
        for case_id in ids:
            case = cases.load(case_id)
            labels = labeller.draw(case, cases.schema)
            image, affine = cases.stored(case_id)
            volume = pick(labels if labels.ndim == 3 else labels[None], image.shape[1:])
            writer.add(file_name(case_id), image, volume, affine=affine)
            if sheet and len(shown) < SHOWN:
                shown.append((Sample(case.image, labels), case))
            bar.advance(1)
        writer.finish()
    seconds = time.perf_counter() - began
    report = {"folder": str(out), "samples": len(ids), "of": cases.name}
    report["seconds_per_sample"] = seconds / max(len(ids), 1)
    if sheet:
        report["sheet"] = str(_sheet(out / "sheet.png", shown, schema))
    return report


def refuse_options(run: Path, asked: Mapping[str, Any]) -> None:
    """Refuse what is asked of samples where label maps are drawn of images.

    Raises:
        UsageFault: naming the first option.
    """
    for option, value in asked.items():
        if value:
            raise UsageFault(
                f"{option}: {run} draws label maps of images, which stay as they are; expected "
                f"--conditions SOURCE, -n, -o and --sheet alone. Leave {option} out"
            )


def _sheet(path: Path, shown: Sequence[tuple[Sample, Case]], schema: Schema) -> Path:
    samples, cases = [sample for sample, _ in shown], [case for _, case in shown]
    return write_sheet(path, samples, cases, schema, given=schema.channels, drawn=True)
