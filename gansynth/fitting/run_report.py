"""The report of a run, ``report.html``, and its model card, ``card.md``, from the run's own files.

``report.json`` keeps what the fit reported. All three are written anew after an evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.generator import capabilities_of
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunDescription
from gansynth.core.source import CaseSource
from gansynth.fitting.sample_grids import UNTRAINED
from gansynth.report.figures import write_curves
from gansynth.report.page import compose, data_uri, page
from gansynth.runtime.files import read_json, write_bytes_atomic, write_json_atomic
from gansynth.runtime.options import as_typed, overlay, split_settings
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.deidentify import (
    Identifier,
    Identifiers,
    names_of,
    names_of_case,
    words_of_schema,
)
from gansynth.sampling.manifest import PARTS
from gansynth.training.loggers import FILE as LOSSES
from gansynth.training.loop import loop_options

RESULTS, PAGE, CARD = "report.json", "report.html", "card.md"
CURVES = Path("samples", "curves.png")
KEPT_KEYS = (
    "held_out_cases",
    "seconds",
    "waited_share",
    "memory_mib",
    "losses",
    "spectrum_ratio",
    "diversity",
    "label_maps",
)
"""Keys of what a fit reports that ``report.json`` keeps."""
SHEETS = 5
"""Most preview grids of different steps in a report, the first and the last among them."""
PATIENTS = (
    "This file holds pictures of training cases, and their names: the real panels of its preview "
    f"grids. Check that you may pass them on before you share it. {CARD} holds none."
)


def write_run_report(
    run: RunDescription,
    reporter: Reporter,
    facts: Mapping[str, Any] | None = None,
    source: CaseSource | None = None,
) -> None:
    """Write report and card of a run, after a fit its curves, too; what hinders that is a warning.

    Args:
        facts: what the fit reported, and its ``warnings``; None: what an earlier report kept.
        source: of the fit; its held-out cases, which no lineage has, are not named in warnings.
    """
    try:
        path = run.folder / RESULTS
        kept = (read_json(path) if path.exists() else {}) if facts is None else facts
        document = _document(run, kept)
        if source is not None:
            held_out = Identifiers(_names_held_out(source), words_of_schema(run.schema))
            document["warnings"] = held_out.blanked(document["warnings"], paths=False)
        losses = run.folder / LOSSES
        if facts is not None and losses.exists():
            write_curves(losses, run.folder / CURVES)
        pictures = _pictures(run.folder)
        shown = page(_text(run, document, pictures), pictures)
        card = _text(run, _nameless(run, document))
        write_json_atomic(path, document)
        write_bytes_atomic(run.folder / PAGE, shown.encode())
        write_bytes_atomic(run.folder / CARD, card.encode())
    except Exception as error:  # of any kind: a report must not cost a fit
        reporter.warn(f"{run.folder}: no {PAGE} and {CARD}: {error}; the run itself is whole")


def _document(run: RunDescription, facts: Mapping[str, Any]) -> dict[str, Any]:
    manifest, config = run.manifest, run.manifest["config"]
    measured = run.folder / "evaluation" / "evaluation.json"
    evaluation = read_json(measured) if measured.is_file() else {}
    home = re.compile(rf"(?<![\w./-]){re.escape(str(run.folder))}(?![\w-])")
    document = {key: facts[key] for key in KEPT_KEYS if key in facts}
    document |= {
        "steps": {"done": manifest["steps"], "asked": config.get("fit", {}).get("steps")},
        "warnings": [home.sub("RUN", text) for text in facts.get("warnings", ())],
        "lineage": [_seen(lineage) for lineage in run.lineage.everyone()],
        "changed": [] if PARTS in manifest else list(_changed(manifest)),
        "config": config,
        "evaluation": {key: evaluation.get(key) for key in ("words", "alarms")},
    }
    return document


def _names_held_out(source: CaseSource) -> Iterator[Identifier]:
    for case_id in source.held_out_ids:
        yield from names_of_case(case_id, source.header(case_id).subject)


def _seen(lineage: Lineage) -> dict[str, Any]:
    """Count the cases of a lineage; their ids and the path of the data stay in the manifest."""
    sites = sorted({case.site for case in lineage.cases} - {""})
    return {
        "dataset": lineage.dataset.rstrip("/").rpartition("/")[2] or "unknown data",
        "fold": lineage.fold,
        "cases": len(lineage.cases),
        "subjects": len({case.subject for case in lineage.cases}),
    } | ({"sites": sites} if sites else {})


def _changed(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    cls, config = installed().generator(manifest["generator"]), manifest["config"]
    loop = capabilities_of(cls).loop
    usual = overlay(as_typed(loop), {})
    models = split_settings(usual, loop_options(cls), cls.Options, generator=cls.name)
    for part, model in zip(("fit", "options"), models, strict=True):
        for key, value in model.model_dump(mode="json").items():
            here = config[part].get(key, value)
            if here != value:
                yield {"setting": key, "here": here, "usual": value}


def _text(
    run: RunDescription, root: Mapping[str, Any], pictures: Mapping[str, str] | None = None
) -> str:
    """Return the text of the report with these pictures, or of the card, which has none."""
    newest, *earlier = [name for name in pictures or () if name.startswith("step-")] or [""]
    others = [name for name in pictures or () if name not in (newest, *earlier, CURVES.stem)]
    return compose(
        "run.md",
        run=run,
        root=root,
        manifest=run.manifest,
        parts=run.manifest.get(PARTS),
        name=run.folder.resolve().name,
        pictures=pictures,
        grids=[*filter(None, [newest]), *others],
        earlier=earlier,
        all_steps=len(_steps(run.folder)),
        about=_about(run, root),
        changed=_shown(root["changed"]),
        lineage=_shown(root["lineage"]),
        settings=(run.folder / "config.yaml").read_text("utf-8"),
        page_name=PAGE,
        card_name=CARD,
        version=__version__,
    )


def _nameless(run: RunDescription, document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace names of cases and subjects, and paths, by ``?``; the data set keeps its name."""
    names = list(names_of(run.lineage))
    kept = [name.text for name in names if name.what == "data set"]
    blanked = Identifiers(names, (*words_of_schema(run.schema), *kept)).blanked(document)
    return dict(blanked)


def _about(run: RunDescription, root: Mapping[str, Any]) -> dict[str, str]:
    """Return terms of the data and what they are here, without those that say nothing."""
    own, request, schema = root["lineage"][0], run.request, run.schema
    spacing = " x ".join([f"{value:.3g}" for value in schema.spacing])
    (reading,) = _shown([root["config"]["data"]["read"]])
    takes = ", ".join(sorted(run.capabilities.takes)) or "noise alone"
    about = {
        "data set": f"{own['dataset']}, fold {own['fold']}",
        "sites": ", ".join(own.get("sites", ())),
        "configuration": " ".join(filter(None, (request.configuration, request.plans))),
        "read with": ", ".join([f"{key}={value}" for key, value in reading.items()]),
        "size": f"{' x '.join(map(str, run.space.size))} voxels; spacing of cases {spacing}",
        "channels": ", ".join(schema.channels),
        "labels": ", ".join([name for name, value in schema.labels.items() if value > 0]),
        "classes": ", ".join(schema.classes),
        "conditions": "those of its parts" if PARTS in run.manifest else takes,
        "edits": ", ".join(run.edits),
    }
    return {term: text for term, text in about.items() if text}


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [as_typed(row) for row in rows]


def _steps(run: Path) -> list[str]:
    return sorted(path.stem for path in (run / "samples").glob("step-*.png"))


def _pictures(run: Path) -> dict[str, str]:
    """Return preview grids, the newest step first, and curves: name -> data URI."""
    steps = _steps(run)
    last = max(0, len(steps) - 1)
    chosen = {round(n * last / (SHEETS - 1)) for n in range(SHEETS)} if steps else set()
    names = [steps[n] for n in sorted(chosen, reverse=True)]
    names += [UNTRAINED, "composite", "nearest", CURVES.stem]
    paths = [run / "samples" / f"{name}.png" for name in names]
    return {path.stem: data_uri(path.read_bytes()) for path in paths if path.is_file()}
