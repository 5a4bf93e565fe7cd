"""The report of a run, ``report.html``, and its model card, ``card.md``, from the run's own files.

``report.json`` keeps what the fit reported. All three are written anew after an evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.core.generator import capabilities_of
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunDescription
from gansynth.fitting.sample_grids import UNTRAINED
from gansynth.report.blocks import (
    Block,
    BulletList,
    CodeBlock,
    Definitions,
    Details,
    ImageRow,
    Paragraph,
    Report,
    ReportImage,
    Section,
    Table,
    TableColumn,
    TableRow,
    data_uri,
)
from gansynth.report.document import JsonNode
from gansynth.report.figures import write_curves
from gansynth.report.numbers import Line, link_number, number, whole
from gansynth.report.rendering import markdown, render
from gansynth.runtime.files import read_json, write_bytes_atomic, write_json_atomic
from gansynth.runtime.options import overlay, split_settings
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.identifiers import Identifiers, names_of, words_of_schema
from gansynth.sampling.run import PARTS
from gansynth.training.loggers import FILE as LOSSES
from gansynth.training.loop import loop_options

RESULTS, PAGE, CARD = "report.json", "report.html", "card.md"
CURVES = Path("samples", "curves.png")
KEPT = (
    *("held_out_cases", "seconds", "memory_mib", "losses", "spectrum_ratio", "diversity"),
    "label_maps",
)
"""Keys of what a fit reports that ``report.json`` keeps."""
SHEETS = 5
"""Most preview grids of different steps in a report, the first and the last among them."""
PATIENTS = (
    "This file holds pictures of training cases, and their names: the real panels of its preview "
    f"grids. Check that you may pass them on before you share it. {CARD} holds none."
)
STYLE = """
.pictures { display: block; overflow-x: auto; }
:is(.warnings, .items) a.n { white-space: inherit; }
.pictures img { width: auto; min-width: 44rem; max-width: max(100%, 44rem); background: #fff; }
"""
USE = (
    "Its samples are meant for research, as additional training cases of a segmentation or "
    "detection framework on this fold. They are no basis for a diagnosis.",
    "Scanners, protocols, ages and diseases that its training subjects lack are unknown to it.",
    "Other folds hold out cases that it has seen; gansynth refuses to train them with it (exit 6).",
    "Its weights and samples may reproduce training images. Before you share either: gansynth "
    "evaluate RUN, and gansynth help sharing.",
    "Whether its samples help a framework is not known from this page: gansynth benchmark.",
)


def write_run_report(
    run: RunDescription, reporter: Reporter, facts: Mapping[str, Any] | None = None
) -> None:
    """Write report and card of a run, after a fit its curves, too; what hinders that is a warning.

    Args:
        facts: what the fit reported, and its ``warnings``; None: what an earlier report kept.
    """
    try:
        path = run.folder / RESULTS
        kept = (read_json(path) if path.exists() else {}) if facts is None else facts
        document = _document(run, kept)
        if facts is not None and (losses := run.folder / LOSSES).exists():
            write_curves(losses, run.folder / CURVES)
        page = render(_page(run, _card(run, JsonNode(document))), style=STYLE)
        card = markdown(_card(run, JsonNode(_nameless(run, document))))
        write_json_atomic(path, document)
        write_bytes_atomic(run.folder / PAGE, page.encode())
        write_bytes_atomic(run.folder / CARD, card.encode())
    except Exception as error:  # of any kind: a report must not cost a fit
        reporter.warn(f"{run.folder}: no {PAGE} and {CARD}: {error}; the run itself is whole")


def _document(run: RunDescription, facts: Mapping[str, Any]) -> dict[str, Any]:
    manifest, config = run.manifest, run.manifest["config"]
    measured = run.folder / "evaluation" / "evaluation.json"
    evaluation = read_json(measured) if measured.is_file() else {}
    home = re.compile(rf"(?<![\w./-]){re.escape(str(run.folder))}(?![\w-])")
    return {
        **{key: facts[key] for key in KEPT if key in facts},
        "steps": {"done": manifest["steps"], "asked": config.get("fit", {}).get("steps")},
        "warnings": [home.sub("RUN", text) for text in facts.get("warnings", ())],
        "lineage": [_seen(lineage) for lineage in run.lineage.everyone()],
        "changed": [] if PARTS in manifest else list(_changed(manifest)),
        "config": config,
        "evaluation": {key: evaluation.get(key) for key in ("words", "alarms")},
    }


def _seen(lineage: Lineage) -> dict[str, Any]:
    """Count the cases of a lineage; their ids and the path of the data stay in the manifest."""
    return {
        "dataset": lineage.dataset.rstrip("/").rpartition("/")[2] or "unknown data",
        "fold": lineage.fold,
        "cases": len(lineage.cases),
        "subjects": len({case.subject for case in lineage.cases}),
    }


def _changed(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    cls, config = installed().generator(manifest["generator"]), manifest["config"]
    loop = capabilities_of(cls).loop
    usual = overlay({key: json.dumps(value) for key, value in loop.items()}, {})
    models = split_settings(usual, loop_options(cls), cls.Options, generator=cls.name)
    for part, model in zip(("fit", "options"), models, strict=True):
        for key, value in model.model_dump(mode="json").items():
            if (here := config[part].get(key, value)) != value:
                yield {"setting": key, "here": here, "usual": value}


def _card(run: RunDescription, root: JsonNode) -> Report:
    own, steps, parts = root["lineage"][0], root["steps"], run.manifest.get(PARTS)
    done: Line = [f"{len(parts)} parts, "] if parts else []
    if steps["asked"]:
        done = ["step ", whole(steps["done"]), " of ", whole(steps["asked"]), ", "]
    return Report(
        name=f"Model card of {run.folder.resolve().name}",
        sentence=[
            *(str(run.manifest["generator"]), ", ", *done, "fitted on ", whole(own["cases"])),
            *(" cases of ", whole(own["subjects"])),
            *(" subjects; ", whole(root["held_out_cases"]), " cases held out."),
        ],
        scope=["A generator of labelled images for training, from gansynth fit."],
        warnings=[[link_number(node)] for node in root["warnings"]],
        sections=[
            _section("Data", _data(run, root)),
            _section("Settings", _settings(root)),
            _section("Measures", _measures(root)),
            _section(
                "Use and limits", [BulletList("Before you use it:", [[text] for text in USE])]
            ),
            _section("Lineage", _lineage(run, root)),
        ],
        footer=[f"gansynth {__version__}, run {run.run_id}"],
        maker="gansynth fit",
        opening="Summary",
        results=RESULTS,
    )


def _nameless(run: RunDescription, document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace names of cases and subjects, and paths, by ``?``; the data set keeps its name."""
    names = list(names_of(run.lineage))
    kept = [name.text for name in names if name.what == "data set"]
    blanked = Identifiers(names, (*words_of_schema(run.schema), *kept)).blanked(document)
    return {**blanked}


def _page(run: RunDescription, card: Report) -> Report:
    grids = list(_grids(run.folder / "samples"))
    config = CodeBlock((run.folder / "config.yaml").read_text("utf-8"), "/config")
    data, settings, *others = card.sections
    settings = replace(settings, blocks=[*settings.blocks, Details("All settings", [config])])
    none = [Paragraph(["There are none yet."], "note")]
    curves = _images((run.folder / CURVES).parent, CURVES.stem)
    return replace(
        card,
        name=f"Run {run.folder.resolve().name}",
        warnings=[*card.warnings, *([[PATIENTS]] if grids else [])],
        sections=[
            _section("Preview grids", grids or none),
            *([_section("Curves", curves)] if curves else []),
            *(data, settings, *others),
        ],
    )


def _section(title: str, blocks: Sequence[Block]) -> Section:
    return Section(title.lower().replace(" ", "-"), title, title, blocks)


def _data(run: RunDescription, root: JsonNode) -> list[Block]:
    own, request, schema = root["lineage"][0], run.request, run.schema
    spacing = " x ".join(f"{value:.3g}" for value in schema.spacing)
    reading = root["config"]["data"]["read"].members()
    takes = ", ".join(sorted(run.capabilities.takes)) or "noise alone"
    labels = [name for name, value in schema.labels.items() if value > 0]
    rows: list[tuple[str, str]] = [
        ("data set", f"{own['dataset'].text}, fold {own['fold'].text}"),
        ("configuration", " ".join(filter(None, (request.configuration, request.plans)))),
        ("read with", ", ".join(f"{key}={_shown(node.value)}" for key, node in reading)),
        ("size", f"{' x '.join(map(str, run.space.size))} voxels; spacing of cases {spacing}"),
        ("channels", ", ".join(schema.channels)),
        ("labels", ", ".join(labels)),
        ("classes", ", ".join(schema.classes)),
        ("conditions", "those of its parts" if PARTS in run.manifest else takes),
        ("edits", ", ".join(run.edits)),
    ]
    return [Definitions([(term, [text]) for term, text in rows if text])]


def _settings(root: JsonNode) -> list[Block]:
    if not root["changed"]:
        parts = PARTS in root["config"].value
        usual = "Its parts have them." if parts else "All settings are the generator's usual ones."
        return [Paragraph([usual], "note")]
    return [_table("Settings that differ from the usual ones, typed or automatic", root["changed"])]


def _table(caption: str, rows: JsonNode) -> Table:
    columns = [TableColumn(name, "words") for name, _ in rows[0].members()]
    cells = [[[_shown(node.value)] for _, node in row.members()] for row in rows]
    return Table(caption, columns, [TableRow(row) for row in cells])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _measures(root: JsonNode) -> list[Block]:
    words = root["evaluation"]["words"]
    lists = {
        "Shown:": list(words["shown"]),
        "Not shown:": list(words["not_shown"]),
        "Alarms:": [alarm["text"] for alarm in root["evaluation"]["alarms"]],
    }
    found = [BulletList(k, [[link_number(node)] for node in v]) for k, v in lists.items() if v]
    if dice := root["label_maps"]["dice"]:
        on: Line = [" on ", whole(root["label_maps"]["cases"]), " training cases"]
        rows = [(f"Dice of {name}", [number(mean, 2), *on]) for name, mean in dice.members()]
        return [Definitions(rows), *found]
    note = "Realism, faithfulness and memorisation were not measured yet: gansynth evaluate RUN."
    return [*found] or [Paragraph([note], "note")]


def _lineage(run: RunDescription, root: JsonNode) -> list[Block]:
    weights, versions = run.manifest["weights"], run.manifest["versions"]
    begun, trained = root["config"]["init_from"], weights and root["steps"]["asked"]
    rows: list[tuple[str, Line]] = [
        *([("started from", [begun.text or "new weights"])] if trained or begun else []),
        *([("weights", [f"{weights['path']}, SHA-256 {weights['sha256']}"])] if trained else []),
        *((f"part {p['name']}", [f"{p['folder']}/{PAGE}"]) for p in run.manifest.get(PARTS, ())),
        ("versions", [", ".join(f"{name} {version}" for name, version in versions.items())]),
        ("begun", [str(run.manifest["created"])]),
    ]
    seen = _table("Cases it has seen; manifest.json names them", root["lineage"])
    return [seen, Definitions(rows)]


def _grids(folder: Path) -> Iterator[Block]:
    steps = sorted(path.stem for path in folder.glob("step-*.png"))
    last = max(0, len(steps) - 1)
    *earlier, newest = sorted({round(n * last / (SHEETS - 1)) for n in range(SHEETS)})
    yield from _images(folder, *steps[newest:], UNTRAINED, "composite", "interpolation", "nearest")
    if rows := _images(folder, *(steps[n] for n in reversed(earlier))):
        yield Details(f"{len(rows)} of {last} earlier ones", rows)


def _images(folder: Path, *names: str) -> list[Block]:
    paths = [path for name in names if (path := folder / f"{name}.png").is_file()]
    return [
        ImageRow([ReportImage(data_uri(p.read_bytes()), p.stem, [f"{folder.name}/{p.name}"])])
        for p in paths
    ]
