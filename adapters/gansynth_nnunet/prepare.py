"""Check a raw data set, then plan and preprocess it with nnU-Net's own functions."""

from __future__ import annotations

import contextlib
import io
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from gansynth import (
    CommandReport,
    DataFault,
    EnvironmentFault,
    PrepareRequest,
    UsageFault,
    disk_errors,
)
from gansynth.runtime.processes import without_script
from gansynth.runtime.progress import stepping
from gansynth_nnunet.cases import PreprocessedArrays, write_hashes
from gansynth_nnunet.dataset import NnunetRoot, raw_set
from gansynth_nnunet.plans import (
    DEFAULT_PLANS,
    PLANNERS,
    NnunetPlans,
    PrepareSettings,
    planning,
    write_small_plans,
)
from gansynth_nnunet.raw import check_raw, raise_on_errors
from gansynth_nnunet.workers import WORKERS, counting_files


def prepare(request: PrepareRequest, options: PrepareSettings) -> CommandReport:
    """Implement ``gansynth prepare nnunet:ID``: check, fingerprint, plan and preprocess.

    What is done already is not done again. Plans that are neither nnU-Net's default nor those of
    its residual encoders must exist already.
    """
    source, name = request.request, request.request.plans or DEFAULT_PLANS
    root, dataset = NnunetRoot.of(source.where, source.root)
    folder = root.preprocessed / dataset
    named = replace(source, plans=name)
    seconds: dict[str, float] = {}  # of each step; 0.0 if it had been done before
    with stepping(request.reporter) as progress:
        with _timed(seconds, "check"):
            report = check_raw(source, lambda done, total: progress("check", done, total))
            raise_on_errors(report.findings, source)
        raw, number = raw_set(root, dataset), int(dataset[7:10])
        files = [file for entry in raw.listing.entries for file in entry.files]
        changes = [file.stat().st_mtime for file in [*files, raw.listing.where]]
        newest = max(changes)

        path, plans = folder / f"{name}.json", None
        if path.is_file():
            with contextlib.suppress(DataFault):  # damaged
                plans = NnunetPlans(folder, named)
        made_here = name in (DEFAULT_PLANS, *PLANNERS)
        if plans is None or path.stat().st_mtime < newest or (request.force and made_here):
            if not made_here:
                raise UsageFault(
                    "nnunet.plans-missing-or-outdated",
                    f"{path}: not there, damaged or older than the raw data, and only "
                    f"{DEFAULT_PLANS}, {', '.join(PLANNERS)} are made here; make it by: "
                    f"{planning(dataset, named)}",
                )
            if plans is None:
                path.unlink(missing_ok=True)  # nnU-Net would read it and extend it
            progress("fingerprint", 0, 1)
            with _timed(seconds, "fingerprint"), _nnunet(root, folder):
                from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

                extractor = nnunet.DatasetFingerprintExtractor(number, request.processes)
                if options.voxels is not None:
                    extractor.num_foreground_voxels_for_intensitystats = options.voxels
                extractor.show_progress_bar = False
                extractor.run(overwrite_existing=True)
            progress("fingerprint", 1, 1)
            with _timed(seconds, "plan"), _nnunet(root, folder):
                nnunet.plan_experiments([number], PLANNERS.get(name, "ExperimentPlanner"))
            progress("plan", 1, 1)
        else:
            seconds.update(fingerprint=0.0, plan=0.0)
        plans = NnunetPlans(folder, named)

        configurations = tuple(request.configurations) or (plans.usual(prepared=False),)
        arrays = {each: plans.data_folder(each) for each in configurations}  # refuses unknown ones
        for each, place in arrays.items():
            there = [file for file in place.glob("*.pkl") if file.with_suffix(".b2nd").is_file()]
            done = {file.stem: file.stat().st_mtime for file in there}
            if set(done) == set(raw.ids) and min(done.values()) >= newest and not request.force:
                seconds[each] = 0.0
                again = replace(named, configuration=each).command(PrepareRequest, force=True)
                noted = PreprocessedArrays(place, f"preprocess again: {again}")
                for file in noted.unnoted():  # of nnU-Net's own command; the first notes all
                    noted.checked(file.name)
                continue
            with (
                _timed(seconds, each),
                _nnunet(root, folder),
                counting_files(place, ".pkl", partial(progress, each), len(raw.ids)),
            ):
                from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

                nnunet.preprocess_dataset(
                    number, name, [each], [request.processes], show_progress_bar=False
                )
            write_hashes(place)
        if options.small:
            write_small_plans(plans, options, configurations)
    for finding in report.findings:
        request.reporter.warn(finding.message)
    small = options.plans_name if options.small else source.plans
    return CommandReport(
        {
            "dataset": dataset,
            "plans": (name, options.plans_name) if options.small else (name,),
            "configurations": configurations,
            "seconds": seconds,
            "warnings": [vars(finding) for finding in report.findings],
        },
        fits=replace(source, configuration=configurations[0], plans=small),
    )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


@contextlib.contextmanager
def _nnunet(root: NnunetRoot, folder: Path) -> Iterator[None]:
    before = dict(os.environ)
    with (
        disk_errors(folder),
        without_script(),  # nnU-Net spawns its workers
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.update(root.variables())
        if before.get(WORKERS) == "0":  # allowed in training, breaks planning
            os.environ[WORKERS] = "1"
        try:
            yield
        except Exception as error:  # nnU-Net has no error classes of its own
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise
            words = " ".join(str(error).split()) or type(error).__name__
            raise EnvironmentFault(
                "nnunet.preparation-failed",
                f"{folder.name}: nnU-Net failed: {words:.400}. Make room if the disk of {folder} "
                "is full; use fewer processes (--processes 1) if memory is short",
            ) from error
        finally:
            os.environ.clear()
            os.environ.update(before)
