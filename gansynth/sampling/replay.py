"""Replay of a recorded sample by its number, its seed and its generation settings.

A record is a line of a draw log, or a sample's provenance. Both hold the number of the sample, not
its place in a bank, which may skip rejected samples or be refreshed. Samples are generated in the
recorded batches, on the same kind of device, with as many threads. The hash tells whether the
result is the same to the bit; if it is not, the sketch tells how far off it is.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gansynth.core.sample_request import SETTINGS, SampleRequest
from gansynth.core.schema import Sample, Schema, content_hash
from gansynth.runtime.child import torch_threads
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault, did_you_mean
from gansynth.runtime.files import parse_json, read_json, reading
from gansynth.sampling.sketch import TOLERANCE, Sketch

if TYPE_CHECKING:
    from gansynth.sampling.manifest import Run
    from gansynth.sampling.sampler import Sampler

FORMS = (
    "FILE:LINE of a draw log (draws-*.csv), or FILE:NAME of a JSON file with samples' provenance "
    "(provenance.json, an export's record)"
)
OLD = "it was written by a version of gansynth that recorded nothing for a replay"
SAMPLING = "13"
"""What samples depend on beside run, settings and machine; 1, or none, before cases were emptied in
four ways (100), 2 before lesions kept their edges and contrast, 3 before they were drawn in windows
(091), 4 before they kept to one side, and below the surface (092), 5 before drawn ones had trends
(097), 6 before a frame with air in it was no body (098), 7 before crops were cut from emptied cases
(100), 8 before each piece of a filled place continued what is around itself, 9 before textures were
drawn in single precision, and fills were joined to the body alone, 10 before small products,
principal axes and ties were the same on every CPU, 11 before an edited lesion lay in two samples
and textures were cut from tiles, 12 before a picture's edge was an end of the body for lesions, and
the mean of drawn ones was held to that of training ones."""
logger = logging.getLogger("gansynth")


# -- noting --------------------------------------------------------------------------------------


def settings_of(
    drawer: Sampler, batch: int, dtype: str, host: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the generation settings for the provenance; JSON.

    Args:
        batch: samples generated at once, from a multiple of that on.
        host: ``target`` and ``request`` of a host that has another source than the run.
    """
    import torch

    settings: dict[str, Any] = {"generator": drawer.run.manifest_sha256}
    settings.update(drawer.request.to_json())
    del settings["seed"]  # of which the provenance has the sample's own
    settings.update(batch=batch, dtype=dtype)
    settings.update(_machine(str(drawer.run.generator.device)))
    settings["threads"] = torch.get_num_threads()
    if host is not None:
        settings["host"] = dict(host)
    return settings


def host_of(
    request: Mapping[str, Any], target: str, run: Run, *, converted: bool
) -> dict[str, Any] | None:
    """Return target and request of the host if they differ from the run's own."""
    request = {key: value for key, value in request.items() if key != "view"}
    if not converted and request.items() <= run.request.to_json().items():
        return None
    return {"target": target, "request": request}


def noted(sample: Sample, settings: Mapping[str, Any]) -> Sample:
    """Add settings and hash to a sample's provenance, for a replay."""
    dtype = str(settings["dtype"])
    provenance = dict(sample.provenance, settings=dict(settings))
    provenance["sha256"] = sample_sha256(sample, dtype)
    provenance["sketch"] = str(Sketch.of(_as_stored(sample, dtype)))
    return replace(sample, provenance=provenance)


def _as_stored(sample: Sample, dtype: str) -> Sample:
    image = np.asarray(sample.image).astype(dtype).astype(np.float32)
    return replace(sample, image=image)


def sample_sha256(sample: Sample, dtype: str) -> str:
    """Return the SHA-256 of image, labels and boxes as they are stored."""
    boxes = sample.boxes
    return content_hash(
        np.asarray(sample.image).astype(dtype, copy=False),
        sample.labels,
        None if boxes is None else np.asarray(boxes.coords, np.float32),
        None if boxes is None else np.asarray(boxes.labels, np.int16),
    )


def _machine(device: str) -> dict[str, str]:
    import torch

    from gansynth.runtime.devices import device_name

    kind = device.partition(":")[0]
    cpu = torch.backends.cpu.get_cpu_capability()
    model = device_name(torch.device(device)) if kind == "cuda" else cpu
    return {"device": kind, "model": model, "torch": torch.__version__, "sampling": SAMPLING}


# -- reading records -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleRecord:
    """The record of a generated sample."""

    name: str
    index: int  # its number among the samples of its seed
    sha256: str  # hash of its content (`sample_sha256`)
    settings: Mapping[str, Any]  # its generation settings (`settings_of`), with its seed
    sketch: Sketch | None = None  # None of older versions

    @classmethod
    def of(cls, provenance: Mapping[str, Any], name: str) -> SampleRecord:
        try:
            settings = {"seed": provenance["seed"], **provenance["settings"]}
            if "asking" in settings:
                raise UsageFault(
                    "sampling.replay-record-of-other-version",
                    f"--replay {name}: was written by another version of gansynth, "
                    "expected a record of this one; generate the sample again",
                )
            index, digest = int(provenance["index"]), str(provenance["sha256"])
            sketch = provenance.get("sketch")
            return cls(name, index, digest, settings, None if not sketch else Sketch.read(sketch))
        except (KeyError, TypeError, ValueError):
            missing = [
                key for key in ("index", "seed", "settings", "sha256") if key not in provenance
            ]
            raise UsageFault(
                "sampling.replay-record-incomplete",
                f"--replay {name}: has no {', '.join(missing) or 'usable number'}, expected a "
                f"sample's provenance; {OLD}, or for sharing",
            ) from None


def read_record(text: str) -> SampleRecord:
    """Read ``FILE:LINE`` of a draw log, or ``FILE:NAME`` of a JSON file with provenance."""
    where, colon, which = text.rpartition(":")
    if not colon or not where or not which:
        raise UsageFault("sampling.replay-form-unknown", f"--replay {text}: expected {FORMS}")
    path = Path(where).expanduser()
    if not path.is_file():
        raise DataFault(
            "sampling.replay-no-file", f"--replay {text}: no file {path}, expected {FORMS}"
        )
    if path.suffix == ".csv":
        with reading(path):
            lines = path.read_text("utf-8", "replace").splitlines()
        return _line(text, lines, which)
    doc = read_json(path, hint=f"expected {FORMS}")
    samples = doc.get("samples", doc.get("slots"))
    if not isinstance(samples, dict):
        raise DataFault("sampling.replay-no-samples", f"{path}: has no samples, expected {FORMS}")
    if which not in samples:
        raise UsageFault(
            "sampling.replay-sample-unknown",
            f"--replay {text}: no sample {which!r}, expected one of {len(samples)}, for example "
            f"{next(iter(samples), None)!r}.{did_you_mean(which, samples)}",
        )
    provenance = samples[which]
    if not isinstance(provenance, dict):
        raise DataFault(
            "sampling.replay-sample-not-object",
            f"{path}: sample {which!r} is no object, expected {FORMS}",
        )
    return SampleRecord.of(provenance.get("provenance", provenance), text)


def _line(text: str, lines: list[str], which: str) -> SampleRecord:
    number = int(which) if which.isdecimal() else 0
    if not 0 < number <= len(lines):
        raise UsageFault(
            "sampling.replay-line-unknown",
            f"--replay {text}: no line {which}, expected the number of one of {len(lines)} lines",
        )
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines[:number]))))
    except csv.Error as error:
        raise DataFault(
            "sampling.replay-line-damaged", f"--replay {text}: damaged ({error}), expected {FORMS}"
        ) from None
    row = rows[-1]
    if row[:1] != ["synthetic"]:
        raise UsageFault(
            "sampling.replay-line-not-synthetic",
            f"--replay {text}: line {number} is {' '.join(row[:2])!r}, expected one that begins "
            "with synthetic; real cases are not generated",
        )
    settings = [each[2] for each in rows if each[:1] == [SETTINGS] and len(each) > 2]
    if not settings or len(row) < 5:
        raise UsageFault(
            "sampling.replay-line-without-number",
            f"--replay {text}: line {number} has no sample's number; {OLD}",
        )
    try:
        values = parse_json(settings[-1])  # the last ones above the line
        provenance = {"index": row[3], "seed": values["seed"], "sha256": row[4], "settings": values}
        provenance["sketch"] = row[5] if len(row) > 5 else None
    except (ValueError, LookupError, TypeError) as error:
        raise DataFault(
            "sampling.replay-settings-damaged",
            f"--replay {text}: its settings are damaged ({error}), expected those of a draw log",
        ) from None
    return SampleRecord.of(provenance, text)


# -- drawing again -------------------------------------------------------------------------------


Equality = Literal["bits", "tolerance", "none", "unknown"]
"""Of a replayed sample with the one that was recorded: the same bits; the same labels, and an image
that differs within ``TOLERANCE``; neither; other bits, and a record that cannot tell how far."""


@dataclass(frozen=True)
class ReplayedSample:
    """A replayed sample."""

    sample: Sample  # as in the training, but float32 with the values that were stored
    schema: Schema
    equality: Equality
    says: str  # the equality in a sentence


def replay(
    run: Path | str,
    record: str | Mapping[str, Any],
    *,
    device: str = "auto",
    root: str | None = None,
) -> Sample:
    """Generate a recorded sample again, as it was drawn from its bank.

    On the same kind of CPU with the same version of torch it is the same to the bit. Elsewhere it
    is logged whether it is the same within a tolerance, as a warning if it is not.

    Args:
        run: folder of the run that generated it.
        record: ``FILE:LINE`` of a draw log, ``FILE:NAME`` of a JSON file with provenance, or a
            sample's provenance itself.
        device: ``auto`` is the recorded kind, if there is one.
        root: overrides the root folder of the source.

    Returns:
        The sample in the host's space: image float32 (C, D, H, W) or (C, H, W), with the values
        that the bank stored.

    Raises:
        UsageFault: no such record, or no run.
        IntegrityFault: another run generated it, or its cases have changed.
    """
    again = regenerate(Path(run), record, device=device, root=root)
    expected = again.equality in ("bits", "tolerance")
    logger.log(logging.INFO if expected else logging.WARNING, "%s", again.says)
    return again.sample


def regenerate(
    folder: Path, record: str | Mapping[str, Any], *, device: str = "auto", root: str | None = None
) -> ReplayedSample:
    """Replay a record like ``replay``, but return what is found instead of logging it."""
    from gansynth.core.run_folder import RunFolder
    from gansynth.sampling.open_run import load_run

    run = RunFolder(folder)
    _ = run.manifest  # raises unless this is a run
    entry = (
        read_record(record) if isinstance(record, str) else SampleRecord.of(record, "provenance")
    )
    settings = entry.settings
    digest = run.manifest_sha256
    if digest != settings["generator"]:
        raise IntegrityFault(
            "sampling.replay-run-changed",
            f"{folder}: manifest is {digest[:12]}, {entry.name} was drawn by "
            f"{settings['generator'][:12]}; expected that run, as it was then. Name it, or restore "
            "it: a fit that went on has other weights",
        )
    opened = load_run(run, _kind(device, settings))
    with torch_threads(int(settings["threads"])):
        sample, schema = _draw(opened, entry, root)
    dtype = str(settings["dtype"])
    stored = _as_stored(sample, dtype)
    equality, words = _compared(entry, sample_sha256(sample, dtype), stored)
    provenance = dict(sample.provenance, settings=dict(settings), sha256=entry.sha256)
    says = f"{entry.name}: {words}"
    if equality != "bits":
        says += _changes(entry, str(opened.generator.device), near=equality == "tolerance")
    return ReplayedSample(replace(stored, provenance=provenance), schema, equality, says)


def _compared(record: SampleRecord, digest: str, stored: Sample) -> tuple[Equality, str]:
    """Return which kind of equality there is, and how to say it."""
    if digest == record.sha256:
        return "bits", "the same to the bit as what was drawn"
    if record.sketch is None:
        return "unknown", (
            "not the same to the bit as what was drawn, and its record is too old to tell how far "
            "off it is"
        )
    off, deviations = record.sketch.off(stored), "of the image's standard deviation"
    if record.sketch.mark != Sketch.of(stored).mark:
        return (
            "none",
            f"not the same: other labels or boxes, the image off by {off:.1g} {deviations}",
        )
    if not off <= TOLERANCE:
        return "none", f"not the same: the image is off by about {off:.1g} {deviations}"
    return "tolerance", (
        f"the same within {TOLERANCE:g} {deviations} (off by about {off:.1g}; labels equal)"
    )


def _draw(run: Run, record: SampleRecord, root: str | None) -> tuple[Sample, Schema]:
    from gansynth.core.intake import intake_of
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source, source_for
    from gansynth.sampling.sampler import Sampler

    settings = record.settings
    host = settings.get("host")
    request = run.request if host is None else SourceRequest(**host["request"])
    # A host's training has its folders from the environment; the run knows where they were.
    source = open_source(replace(request, root=root or request.root or run.request.root))
    target = host["target"] if host is not None else ""
    intake = intake_of(target, source) if target else None
    run_source, convert = source_for(run, source, intake)
    # It was admitted, or is requested anyway.
    options = replace(SampleRequest.among(settings), filters=(), keep_flawed=True)
    drawer = Sampler(run, run_source, options)
    batch = int(settings["batch"])
    first = record.index - record.index % batch
    sample = drawer.draw(first, batch)[record.index - first]
    return (sample, drawer.source.schema) if convert is None else (convert(sample), source.schema)


def _kind(device: str, settings: Mapping[str, Any]) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if settings["device"] == "cuda" and torch.cuda.is_available() else "cpu"


def _changes(record: SampleRecord, device: str, *, near: bool) -> str:
    """Return what is other than when a sample was drawn, to be added to a sentence."""
    now = _machine(device)
    then = {key: record.settings.get(key, "1") for key in now}
    if now == then:
        return "; drawn on a CPU of another kind" if near else ", though on the same device"
    changes = [f"{key} {then[key]}, now {now[key]}" for key in now if now[key] != then[key]]
    other = then["sampling"] != now["sampling"] and not near
    hint = ". The version that drew it draws it again" if other else ""
    return f": drawn with {'; '.join(changes)}{hint}"
