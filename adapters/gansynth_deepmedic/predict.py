"""Prediction of new images by the user's own DeepMedic, as its own test does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth import (
    PredictJob,
    SourceRequest,
    TrainingFault,
    UsageFault,
    VolumeSource,
    open_source,
)
from gansynth.hosts.contract.prediction import raw_files
from gansynth_deepmedic.layout import list_text
from gansynth_deepmedic.program import checkpoint_in, find_program, run_test
from gansynth_deepmedic.source import DeepMedicSource

SESSION, LOG = "predict", "gansynth_prediction.log"


def predict_images(job: PredictJob, device: str) -> list[Path]:
    """Predict each case, turned along the axes of the training's files if these lie alike."""
    source = open_source(SourceRequest.from_json(job.session["source"]))
    assert isinstance(source, DeepMedicSource)
    images = job.opened(source.schema.channels)
    if not isinstance(images, VolumeSource):
        raise UsageFault(
            "deepmedic.images-not-volumes",
            f"{job.images}: is {images.request.kind}, expected a folder of volumes",
        )
    checkpoint = checkpoint_in(job.folder)["file"]
    program = find_program(*job.session["program"])
    job.begin(target="deepmedic", labels=dict(source.schema.labels), checkpoint=checkpoint)
    cases = images.train_ids
    known = [source.entry(case).images[0] for case in source.train_ids]
    axes = job.axes_of(filter(Path.is_file, known))
    with job.scratch() as home:
        rows = []
        for number, case in enumerate(cases):
            own = home / f"case_{number}"
            own.mkdir()
            rows.append(raw_files(images, case, len(source.schema.channels), own, axes))
        config = write_test(home, rows, job.session["settings"])
        arguments = ["-model", job.session["model"], "-test", str(config)]
        arguments += ["-dev", device.replace(":", "")]
        arguments += ["-load", str(job.folder / checkpoint)]
        with job.reporter.task(len(cases), "case") as task:
            ended = run_test(program, arguments, job.out / LOG)
            task.advance(len(cases))
        files = []
        for number, case in enumerate(cases):
            predicted = home / "predictions" / SESSION / "predictions" / f"{number}_Segm.nii.gz"
            if not predicted.is_file():
                last = ended.last[-1] if ended.last else "it did not say why"
                raise TrainingFault(
                    "deepmedic.predicts-nothing",
                    f"DeepMedic predicts nothing: {last}; see {job.out / LOG}",
                )
            files.append(job.place_labels(images, case, predicted))
    job.say_turned(images, axes)
    return files


def write_test(home: Path, rows: list[list[Path]], settings: Mapping[str, Any]) -> Path:
    """Write DeepMedic's configuration of a test, and its lists; return the configuration."""
    lists = []
    for number, column in enumerate(zip(*rows, strict=True)):
        path = home / f"channel_{number}.cfg"
        path.write_text(list_text([str(file) for file in column]), "utf-8")
        lists.append(str(path))
    names = home / "names.cfg"
    names.write_text(list_text([f"{number}.nii.gz" for number in range(len(rows))]), "utf-8")
    values: dict[str, Any] = {
        "sessionName": SESSION,
        "folderForOutput": str(home),
        "channels": lists,
        "namesForPredictionsPerCase": str(names),
        "saveProbMapsForEachClass": [False] * 64,  # more than any network has
    }
    for key in ("padInputImagesBool", "norm_zscore_prms", "run_input_checks"):
        if key in settings:
            values[key] = settings[key]
    path = home / "test.cfg"
    lines = [f"{key} = {value!r}\n" for key, value in values.items()]
    path.write_text("".join(lines), "utf-8")
    return path
