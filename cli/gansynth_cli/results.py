"""Lines that commands print when they are done, and the next command.

``--json`` has everything else.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gansynth_cli.common import Hint, table, then

if TYPE_CHECKING:
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import CaseSource, SourceRequest
    from gansynth.hosts.deciding.suggestion import Suggestion

PATHS = ("sheet", "nearest", "record")
"""Keys of a sample report whose values are files."""
SHORT, SHORTEST = 0.1, 0.002
"""Shares of a framework's default length below which a training tells little, or nothing. On 0.9 %
of it nnU-Net's Dice of hippocampi is 0.84 already (docs/results.md), on 0.05 % it is 0."""
WIDER = 1.5
"""Millimetres of a rim where there was none, and a wider one is wanted."""
MOST_METRICS = 8
"""Most metrics of a target framework that are shown."""
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def counted(number: int, word: str) -> str:
    """Return ``1 case``, ``2 cases``."""
    return f"{number} {word}{'s' * (number != 1)}"


def then_fit(suggested: Suggestion, request: SourceRequest, **fields: object) -> list[Hint]:
    """Return the fit of the generator that suits a data set, behind what is to know of it.

    ``fields``: of the fit, that the data do not say.
    """
    from gansynth.core.requests.fit import FitRequest
    from gansynth.runtime.files import free_name

    noted = [Hint(f"warning: {suggested.note}")] if suggested.note else []
    named, settings = suggested.generator, suggested.settings
    fields = ({"set": settings} if settings else {}) | fields
    fields.setdefault("out", free_name(Path("runs", named)))
    return [*noted, then(*request.words(FitRequest, generator=named, **fields))]


def then_prepare(request: SourceRequest) -> Hint:
    """Return the preparation of raw cases by their framework, as it suits this machine."""
    from gansynth.core.requests.hosts import PrepareRequest
    from gansynth.hosts.deciding.one_command import suited_preparation

    settings = {} if request.plans else suited_preparation(f"{request.kind}:{request.where}")
    return then(*request.words(PrepareRequest, **({"set": settings} if settings else {})))


def way_to_nnunet(request: SourceRequest) -> Hint:
    """Return the command that makes a data set of nnU-Net of other data."""
    from gansynth.core.requests.hosts import ImportRequest

    return then(*ImportRequest.words_for(request, "nnunet:500"), label="for nnU-Net")


def then_augment(folder: Path) -> Iterator[Hint]:
    """Yield the command that trains a framework for a run's data with its samples."""
    from gansynth.core.registry import installed
    from gansynth.core.run_folder import RunFolder

    run = RunFolder(folder)
    kind, words = run.request.kind, ("--generator", folder, "--ratio", "1:1")
    if not run.capabilities.labelled:
        yield Hint("frameworks learn from labelled samples, which this generator does not draw")
        yield then("help", "dcgan", "label-maps")
    elif kind in installed().names("hosts"):
        yield then("augment", "--target", kind, *words)
    elif run.schema.foreground:
        yield way_to_nnunet(run.request)
        yield then("augment", "--target", "segmenter", *words)


def then_cure(cures: Collection[str], run: RunFolder, source: CaseSource) -> Iterator[Hint]:
    """Yield the fit that cures alarms of ``gansynth evaluate``: of another rim, kind or length."""
    from gansynth.hosts.deciding.suggestion import suggested_generator
    from gansynth.imaging.blending import rim_voxels
    from gansynth.runtime.files import free_name

    votes = [*cures].count("wider") - [*cures].count("narrower")
    rim, spacing = run.manifest.get("options", {}).get("rim_mm"), run.schema.spacing
    if votes and rim is not None:
        other = rim / 2 if votes < 0 else max(2 * rim, WIDER)
        if rim_voxels(other, spacing) != rim_voxels(rim, spacing):  # else it changes nothing
            folder = free_name(Path(f"{run.folder}-rim-{other:g}"))
            yield fit_again(run, folder, rim_mm=other)
            return
    suggested = suggested_generator(source)
    if suggested.generator != run.manifest["generator"]:
        folder = free_name(Path(f"{run.folder}-{suggested.generator}"))
        yield from then_fit(suggested, run.request, out=folder)[-1:]
    elif "longer" in cures:
        yield from _then_longer(run.folder)


def fit_again(run: RunFolder, out: str | Path, **settings: object) -> Hint:
    """Return the fit of a run with other settings; that of its own folder goes on."""
    from gansynth.core.registry import installed
    from gansynth.core.requests.base import text_of
    from gansynth.core.requests.fit import FitRequest
    from gansynth.training.loop import FitOptions

    manifest = run.manifest
    generator = installed().generator(manifest["generator"])
    loop = FitOptions.model_validate(run.capabilities.loop)
    usual = loop.model_dump() | generator.Options().model_dump()
    chosen = dict(manifest["config"].get("fit", {})) | dict(manifest["options"])
    changed = dict[str, Any]()
    for key, value in chosen.items():
        if key in usual and value != usual[key] and text_of(value) != text_of(usual[key]):
            changed[key] = value
    fields = {"generator": manifest["generator"], "set": changed | settings}
    if manifest["edits"] != list(run.capabilities.edits):
        fields["edit"] = manifest["edits"]
    return then(*run.request.words(FitRequest, **fields, out=out))


def lines_of_fit(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result of a fit."""
    from gansynth.runtime.progress import clock_text

    run, parts = report["run"], report.get("parts")
    progress = f"step {report['steps']}" if report.get("steps") else "fitted"
    progress = counted(len(parts), "part") if parts else progress
    on = f" (went on from {report['resumed_at']})" if report.get("resumed_at") else ""
    cases = counted(report["train_cases"], "training case")
    if report.get("kept"):  # of a recipe, whose data are not read again
        yield f"{run}: {progress} already; {cases}"
    else:
        took = clock_text(report["seconds"])
        if report.get("waited_share") is not None:
            took += f", {report['waited_share']:.0%} of it waiting for data"
        yield f"{run}: {progress}{on} in {took}; {cases}, {report['held_out_cases']} held out"
    if report.get("rollbacks"):
        yield f"went back to a checkpoint {counted(report['rollbacks'], 'time')}: not finite"
    if parts:
        yield from table((f"  {name}", *_losses(part)) for name, part in parts.items())
    elif _losses(report):
        yield f"losses: {'  '.join(_losses(report))}"
    bands = report.get("spectrum_ratio")
    if report.get("steps") and bands:  # of what was learnt
        yield f"finest detail: {_finest(bands)} of the real power (1 is as in real images)"
    diversity = report.get("diversity")
    if diversity:
        samples, real = _short(diversity["samples"]), _short(diversity["real"])
        yield f"likeness of samples to each other: {samples}, of real images: {real} (mean MS-SSIM)"
    label_maps = report.get("label_maps", {})
    if label_maps:
        from gansynth.fitting.label_report import dice_text

        yield (
            dice_text(label_maps)
            if "dice" in label_maps
            else f"generated label maps: {label_maps['rejected']:.0%} are rejected"
        )
    page = Path(run) / "report.html"
    if page.is_file():
        yield f"report: {page}"
    if report.get("below_its_size"):
        yield report["below_its_size"]
    else:
        yield then("sample", run, "--sheet")


def _losses(report: Mapping[str, Any]) -> list[str]:
    from gansynth.training.loggers import short_losses

    losses = short_losses(report.get("losses") or {})
    return [f"{name} {value:.3g}" for name, value in losses.items()]


def _finest(bands: Iterable[list[float | None]]) -> str:
    """Return the mean ratio of the highest third of frequencies, or its range over channels."""
    ends = [[v for v in row[-max(1, len(row) // 3) :] if v is not None] for row in bands]
    means = sorted(mean(row) for row in ends if row)
    if not means:
        return "-"
    low, high = _short(means[0]), _short(means[-1])
    return low if low == high else f"{low} to {high}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def lines_of_training(
    document: Mapping[str, Any],
    target: str,
    labels: Mapping[str, int],
    variables: Mapping[str, str] = NO_NAMES,
) -> Iterator[str]:
    """Yield the result of a training with samples mixed in.

    Args:
        document: report of ``gansynth augment``.
        target: name of the framework.
        labels: name -> value.
        variables: of the environment, which a prediction needs.
    """
    from gansynth.metrics.segmentation.evaluation import lines_of, lines_of_sizes, said_of

    real, synthetic = document["drawn_real"], document["drawn_synthetic"]
    yield f"{target}: trained; results are in {document['folder']}"
    shares = ", asked for ".join(_shares(document))
    missed = document["fell_back"]
    lacked = f"; {missed} missing, real ones took their place" if missed else ""
    yield f"drawn: {real} real, {synthetic} synthetic ({shares}){lacked}"
    training_bank = document["supply"]
    often = training_bank.get("draws_per_sample")
    if often is not None:
        more = training_bank.get("restarts") or 0
        died = f"; their producer was started again {counted(more, 'time')}" if more else ""
        uses = "once" if f"{often:.3g}" == "1" else f"{often:.3g} times"
        yield f"each synthetic sample was used {uses}{died}"
    metrics = document["metrics_on_real_cases"]
    names = {str(value): name for name, value in labels.items()}
    rows = list(lines_of(metrics, names))
    if rows:
        yield said_of(metrics)
        yield from table(rows)
        yield from table(list(lines_of_sizes(metrics)))
    else:
        figures = [f"{key} {value:.3g}" for key, value in _numbers(metrics, names=names)]
        if figures:
            yield f"on real held-out cases: {', '.join(figures[:MOST_METRICS])}"
    share = document.get("share_of_usual_length")
    if share is not None:
        yield from _too_short(share, target)
    typed = ("predict", document["folder"], "IMAGES", "-o", "predicted")
    yield then(*typed, label="new images, in a folder IMAGES", variables=variables)


def _too_short(share: float, target: str) -> Iterator[str]:
    if share < SHORT:
        tells = "too short to mean anything" if share < SHORTEST else "tells little of a whole one"
        yield f"a training of {100 * share:.2g}% of {target}'s default length: {tells}"


def lines_of_samples(
    report: Mapping[str, Any], run: Path, *, shared: bool = False
) -> Iterator[str]:
    """Yield where samples are, and their metrics; ``shared``: they are to be handed on."""
    each = report.get("seconds_per_sample")
    took = "" if each is None else f", {each:.2g} s each"
    reject_reasons = f"; {report['rejected']} would be rejected" if report.get("rejected") else ""
    yield f"{counted(report['samples'], 'sample')} in {report['folder']}{took}{reject_reasons}"
    yield from _as_asked(report)
    for key in PATHS:
        path = report.get(key)
        if path:
            yield f"{key}: {path['sheet'] if isinstance(path, Mapping) else path}"
    for name, figures in report.get("metrics", {}).items():
        numbers = [f"{k} {v:.3g}" for k, v in _numbers(figures)]
        yield f"{name}: {', '.join(numbers)}"
    if report.get("rejected", 0) >= max(report["samples"], 1):  # there is nothing to evaluate
        yield from _then_longer(run)
        return
    yield then("evaluate", run, *(("--exported", report["folder"]) if shared else ()))


def _as_asked(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many lesions are of the size asked for, and how many samples show any."""
    sizes, showing = report.get("sizes"), report.get("showing")
    if sizes:
        yield (
            f"size as asked, within 25 %: {sizes['near']} of {sizes['asked']} lesions (median "
            f"{sizes['median_ratio']:.2g} times as many voxels)"
        )
    if showing:
        shown, count = showing["samples"], report["samples"]
        share = f", {shown / count:.0%}".replace("%", " %") if count else ""
        yield (
            f"with a lesion: {shown} of {counted(count, 'sample')}{share}; asked for "
            f"{100 * showing['asked']:.3g} %"
        )


def _then_longer(folder: Path) -> Iterator[Hint]:
    """Yield the fit that goes on with a run, if it trains."""
    from gansynth.core.run_folder import RunFolder

    run = RunFolder(folder)
    if run.capabilities.trains:
        yield fit_again(run, folder, steps=2 * run.manifest["steps"])


def _shares(document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("realised", "asked"):
        share = document[f"{key}_synthetic_share"]
        if share is not None:
            yield f"{share:.1%}"


def _numbers(
    document: object, name: str = "", names: Mapping[str, str] = NO_NAMES
) -> Iterator[tuple[str, float]]:
    """Yield single numbers of a document with their keys; lists are for --json."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _numbers(value, f"{name} {names.get(key, key)}".strip(), names)
    elif isinstance(document, int | float) and not isinstance(document, bool):
        yield name, document


def lines_of_demo(document: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the result of a demo."""
    from gansynth.runtime.progress import clock_text
    from gansynth.testing.demonstration import facts_of_demo

    yield document["note"]
    yield from facts_of_demo(document)
    pictures = [str(folder / file) for file in document["files"].values()]
    yield f"pictures: {', '.join(pictures)}"
    whole = "since it went on" if document["went_on"] else "in all"
    yield f"{clock_text(document['seconds'])} {whole}; more in {folder / 'summary.md'}"
    yield then("evaluate", folder / "run")


def lines_of_phantoms(written: Mapping[str, Any]) -> Iterator[str]:
    """Yield which phantoms were written, and the next step."""
    yield written["note"]
    yield f"{counted(written['subjects'], 'subject')} in {written['data']}"
    yield then(*shlex.split(written["then"])[1:])
