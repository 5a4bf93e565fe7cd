"""Every format that gansynth reads: how a valid sample is made, and how gansynth reads it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault
from tests.fuzz.mutate import BYTES, JSON, TEXT, Mutator, documents

ROOT = Path(__file__).parents[2]
Layer = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
PLAIN: Layer = (bytes, bytes)
Renote = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        make: writes a valid sample into a folder; formats of one ``make`` share it.
        files: patterns of the files that are damaged, one a mutant.
        read: reads as gansynth does, given folder and damaged file. A typed error, or a return.
        mutators: how the file is damaged.
        layers: (unpack, pack) of what is damaged, one chosen for each mutant.
        renote: notes the hash of the damaged file, as one who wants it read would; in half of all.
        together: mutants that are written before the first is read, each in a file of its own.
    """

    make: Callable[[Path], None]
    files: str
    read: Callable[[Path, Path], object]
    mutators: Sequence[Mutator] = BYTES
    layers: Sequence[Layer] = (PLAIN,)
    renote: Renote | None = None
    together: int = 1


# -- data sets -------------------------------------------------------------------------------------


def read_set(asked: Callable[[Path], SourceRequest], folder: Path, file: Path) -> None:
    """Check a data set, then read its cases as a fit does."""
    from gansynth.core.registry import installed
    from gansynth.sampling.run_source import open_source

    request = asked(folder)
    errors = [
        finding.message
        for finding in installed().check(request.kind)(request, lambda done, of: None).findings
        if finding.level == "error"
    ]
    source = open_source(request)
    for case in source.train_ids:
        source.load(case)
    if errors:
        raise DataFault(errors[0])


def make_set(kind: str, folder: Path) -> None:
    from tests.data import sets

    cases = sets.CASES if kind == "manifest" else sets.CASES[1 : 4 if kind == "h5" else 3]
    with mock.patch.object(sets, "CASES", cases):
        sets.KINDS[kind](folder)
    if kind == "manifest":
        file = folder / "lists/set.csv"
        head, *rows = file.read_text().splitlines()
        file.write_text("\n".join([head, *rows[:3], ""]))


def set_of(kind: str, files: str, where: str = "", **more: Any) -> Format:
    """Return the format of a data set's files; ``where`` is relative to the set's folder."""
    name, read = more.pop("source", kind), more.pop("options", {})
    people = None if kind in ("yolo", "deepmedic", "manifest") else r"([a-z]+)_\d"

    def asked(folder: Path) -> SourceRequest:
        return SourceRequest(name, str(folder / where), subjects=people, read=read)

    make = more.pop("make", partial(make_set, kind))
    return Format(make, files, partial(read_set, asked), **more)


def plain_nifti(folder: Path) -> None:
    make_set("nifti", folder)
    for file in folder.rglob("*.nii.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


def listed_as_json(folder: Path) -> None:
    make_set("manifest", folder)
    with (folder / "lists/set.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    (folder / "lists/set.json").write_text(json.dumps({"cases": rows}))


def small_yolo(folder: Path) -> None:
    from tests.yolo_sets import toy_yolo

    toy_yolo(folder, train=3, val=1, test=0, size=16, most=2)


def small_deepmedic(folder: Path) -> None:
    from tests.deepmedic_sets import toy_deepmedic

    toy_deepmedic(folder, train=1, val=1, shape=(14, 14, 14))


GZIP: Layer = (gzip.decompress, partial(gzip.compress, compresslevel=1))


def true_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks all have the checksum of their bytes."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunk = data[at + 4 : at + 8 + size]
        parts += [data[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + size
    return b"".join([*parts, data[at:]])


# -- nnU-Net ---------------------------------------------------------------------------------------


def nnunet_raw(folder: Path) -> None:
    from tests.data.sets import lesion, save, volume

    raw = folder / "nnUNet_raw" / "Dataset501_Toy"
    for number in range(2):
        save(raw / f"imagesTr/p{number}_0000.nii.gz", volume(number))
        save(raw / f"labelsTr/p{number}.nii.gz", lesion(number))
    document = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "organ": [1, 2], "lesion": 2},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(document))


def read_raw(folder: Path, file: Path) -> None:
    from gansynth.core.registry import installed

    request = SourceRequest("nnunet", "501", root=str(folder))
    findings = installed().check("nnunet")(request, lambda done, of: None).findings
    if any(finding.level == "error" for finding in findings):
        raise DataFault(findings[0].message)


def nnunet_preprocessed(folder: Path) -> None:
    from tests.conftest import SMALL, Toy, prepare, shortcuts, write_raw

    toy = Toy(folder)
    write_raw(toy.raw)
    with shortcuts():
        prepare(toy.request(plans=None), ("3d_fullres",), processes=1, **SMALL)
    read_preprocessed(folder, folder)  # writes the folds


def read_preprocessed(folder: Path, file: Path) -> None:
    from gansynth_nnunet.source import NnunetSource
    from tests.conftest import Toy

    source = NnunetSource(Toy(folder).request())
    source.load(source.train_ids[0])


B2ND = "nnUNet_preprocessed/*/*_3d_fullres/*.b2nd"
TOGETHER = 100
_KNOWN: dict[Path, Any] = {}


def unnoted_arrays(folder: Path) -> None:
    nnunet_preprocessed(folder)
    first = min(folder.glob(B2ND))
    (folder / "arrays").mkdir()
    for number in range(TOGETHER):
        shutil.copy(first, folder / f"arrays/{number:03d}.b2nd")


def read_unnoted(folder: Path, file: Path) -> None:
    """Read an array of which no hash is noted; the first call decodes all of them apart."""
    from gansynth_nnunet.cases import PreprocessedArrays

    if file.name == "000.b2nd":
        _KNOWN[folder] = PreprocessedArrays(file.parent, "preprocess again")
    _KNOWN[folder].read(file.name)


# -- banks, runs -----------------------------------------------------------------------------------


def make_bank(folder: Path) -> None:
    import numpy as np

    from gansynth.core.lineage import CaseRecord, Lineage
    from gansynth.core.schema import Boxes, Sample, Schema
    from tests.banks import write_bank

    schema = Schema(("T1",), {"background": 0, "organ": 1}, (1.0, 1.0), "HW")
    lineage = Lineage("toy:2", "0", (CaseRecord("case_1", "person_1", "1" * 64),))
    rng = np.random.default_rng(0)
    pairs: list[tuple[Sample, dict[str, Any]]] = [
        (
            Sample(
                rng.normal(size=(1, 9, 8)).astype(np.float32),
                rng.integers(0, 2, (9, 8)).astype(np.int16),
                Boxes(np.array([[1, 1, 4, 5]], np.float32), np.array([0])),
                provenance={"case": "case_1"},
            ),
            {"places": np.arange(4)},
        )
        for _ in range(3)
    ]
    write_bank(folder / "bank", schema, lineage, pairs)


def read_bank(folder: Path, file: Path) -> None:
    """Verify a bank, as ``--bank`` does, and read every sample."""
    from gansynth.bank.reader import BankReader, verify_bank

    verify_bank(folder / "bank")
    reader = BankReader(folder / "bank")
    for name in reader.ids():
        reader.read(name)


def rehash_sample(folder: Path, file: Path) -> None:
    """Write the hash of a sample's bytes into its header, and into the bank's record."""
    from gansynth.bank.store import _DIGITS, content_of

    data = file.read_bytes()
    head, tail = data[: _DIGITS.start], data[_DIGITS.stop :]
    digest = hashlib.sha256(head + tail).hexdigest()
    file.write_bytes(head + digest.encode() + tail)
    marker = folder / "bank/complete.json"
    hashes = {**json.loads(marker.read_bytes())["samples"], file.stem.partition("-")[2]: digest}
    marker.write_text(json.dumps({"sha256": content_of(hashes), "samples": hashes}))


def renote_bank(folder: Path, file: Path) -> None:
    if file.name == "bank.json":
        redigest(folder, file)


def make_run(folder: Path) -> None:
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter
    from tests.data.sets import pairs

    tiny = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "patch": "6x6x6", "steps": 2}
    loop = {"batch_size": 1, "precision": "fp32", "log_every": 1, "checkpoint_every": 1}
    settings = {key: str(value) for key, value in {**tiny, **loop}.items()}
    reporter = NullReporter()
    request = pairs(folder / "data")
    fit("cgan3d", request, folder / "run", settings=settings, edits=(), device="cpu",
        reporter=reporter)  # fmt: skip


def show_run(folder: Path, file: Path) -> None:
    """As ``gansynth show`` does."""
    from gansynth.sampling.describe import describe_run

    if wrong := describe_run(folder / "run")["wrong"]:
        raise DataFault(wrong[0])


def open_run(folder: Path, file: Path) -> None:
    """As ``sample`` and ``augment`` do."""
    from gansynth.core.run_folder import RunFolder
    from gansynth.sampling.open_run import load_run

    run = RunFolder(folder / "run")
    _ = run.space, run.schema, run.lineage, run.edits, run.request
    load_run(run, "cpu")
    show_run(folder, file)


def resume_run(folder: Path, file: Path) -> None:
    """As a resumed fit does."""
    from gansynth.training.checkpoint import latest
    from gansynth.training.loggers import MetricsLog

    latest(folder / "run" / "checkpoints")
    MetricsLog(folder / "run", start=2)
    show_run(folder, file)


def read_tensors(folder: Path, file: Path) -> None:
    resume_run(folder, file)
    open_run(folder, file)


def redigest(folder: Path, file: Path) -> None:
    """Note the digest of a changed document in it."""
    from gansynth.runtime.files import digest_of, parse_json

    doc = parse_json(file.read_bytes())
    if isinstance(doc, dict):
        file.write_text(json.dumps({**doc, "digest": digest_of(doc)}))


def rehash_weights(folder: Path, file: Path) -> None:
    """Note the hash of a run's tensors in its manifest and in its checkpoints."""
    home = folder / "run"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = home / "manifest.json"
    doc = json.loads(manifest.read_text())
    if home / doc["weights"]["path"] == file:
        doc["weights"]["sha256"] = digest
    manifest.write_text(json.dumps(doc))
    redigest(folder, manifest)
    state = file.parent / "state.json"
    if state.is_file():
        doc = json.loads(state.read_text())
        doc["sha256"][file.name] = digest
        state.write_text(json.dumps(doc))
        redigest(folder, state)


# -- texts that users write ------------------------------------------------------------------------


def read_subjects(folder: Path, file: Path) -> None:
    from gansynth.data.folds import read_subjects

    read_subjects(str(file), ["anna_1", "anna_2", "bert_1"])


def read_boxes(folder: Path, file: Path) -> None:
    from gansynth.conditions.boxes import BoxFile

    BoxFile.read(file)


def read_log(folder: Path, file: Path) -> None:
    from gansynth.bank.draw_log import summarise
    from gansynth.sampling.replay import read_record

    summarise(folder)
    read_record(f"{file}:3")


def read_chain(folder: Path, file: Path) -> None:
    from gansynth.fitting.composite_spec import asked_for

    asked_for(str(file), None)


def read_recipe(folder: Path, file: Path) -> None:
    from gansynth.fitting.recipe import find_recipe

    find_recipe(str(file))


def read_plan(folder: Path, file: Path) -> None:
    from gansynth_benchmark.plan_file import read_plan

    read_plan(file)


def read_table(folder: Path, file: Path) -> None:
    from gansynth_benchmark.papers.plan import find_plan

    find_plan(str(file))


def read_settings(folder: Path, file: Path) -> None:
    from gansynth.fitting.recipe import check_settings

    settings: dict[str, str] = {}
    for line in file.read_text("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        settings[key] = value
    check_settings("cgan3d", settings, settings)


def texts(folder: Path) -> None:
    """Write what users write by hand."""
    plugins = ROOT / "plugins"
    shutil.copy(plugins / "gansynth_cgan3d/recipes/lesion.yaml", folder / "recipe.yaml")
    tables = plugins / "gansynth_cpggan/recipes/tables"
    shutil.copy(tables / "han2019-cpggan.yaml", folder / "table.yaml")
    shutil.copy(ROOT / "benchmarks" / "gains" / "lgg_yolo.yaml", folder / "plan.yaml")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)


TEXTS = {
    "subjects.csv": "case,subject\nanna_1,anna\nanna_2,anna\nbert_1,bert\n",
    "boxes.csv": "class,xmin,ymin,xmax,ymax,image\nlesion,1,2,7.5,9,a\n1,3,3,9,9,b\n",
    "draws-host-1.csv": 'settings,,"{""seed"": 0, ""batch"": 1}"\nreal,case_1,\n'
    f"synthetic,0-1,case_1,1,{'0' * 64}\n",
    "settings.txt": "steps=100\nbatch_size=2\nlr_generator=0.0002\nwidth=16\n"
    "precision=auto\nbody=yes\nlevels=3\nbeta1=0.5\ncheckpoint_every=10",
    "chain.yaml": """parts:
- {name: whole, generator: cgan3d, set: {steps: 10, width: 4, lr_generator: 0.0002}, channels: [T1]}
- {name: rest, generator: dcgan, set: {steps: 5}, channels: [T2, FLAIR], labels_by: whole}
""",
}
YAML: tuple[Mutator, ...] = (
    *TEXT,
    *[documents(yaml.safe_load, lambda doc: yaml.safe_dump(doc).encode())] * len(TEXT),
)
TWO = {"folds": "2"}
FORMATS: dict[str, Format] = {
    "NIfTI .nii": set_of("nifti", "*/*.nii", make=plain_nifti, options=TWO),
    "NIfTI .nii.gz": set_of("nifti", "*/*.nii.gz", layers=(PLAIN, GZIP, GZIP), options=TWO),
    "HDF5 cache": set_of("h5", "*.h5", "cache.h5"),
    "PNG": set_of(
        "pictures", "*/*.png", layers=(PLAIN, (bytes, true_checksums)), options=TWO
    ),
    "nnU-Net .b2nd": Format(nnunet_preprocessed, B2ND, read_preprocessed),
    "nnU-Net .b2nd, no hash": Format(
        unnoted_arrays, "arrays/*.b2nd", read_unnoted, together=TOGETHER
    ),
    "nnU-Net dataset.json": Format(
        nnunet_raw, "nnUNet_raw/*/dataset.json", read_raw, mutators=JSON
    ),
    "nnU-Net plans, splits, notes": Format(
        nnunet_preprocessed, "nnUNet_preprocessed/*/*.json", read_preprocessed, mutators=JSON
    ),
    "MSD dataset.json": set_of(
        "msd", "dataset.json", mutators=JSON, options={"channels": "T1w", **TWO}
    ),
    "list .csv": set_of(
        *("manifest", "lists/set.csv", "lists/set.csv"),
        source="nifti", options={"allow_absolute": "yes"}, mutators=TEXT,
    ),
    "list .json": set_of(
        *("manifest", "lists/set.json", "lists/set.json"), make=listed_as_json,
        source="nifti", options={"allow_absolute": "yes"}, mutators=JSON,
    ),
    "YOLO data.yaml": set_of("yolo", "data.yaml", "data.yaml", make=small_yolo, mutators=YAML),
    "YOLO txt": set_of(
        "yolo", "labels/*/*.txt", "data.yaml", make=small_yolo, mutators=TEXT
    ),
    "DeepMedic .cfg": set_of(
        "deepmedic", "*Config.cfg", "trainConfig.cfg", make=small_deepmedic, mutators=TEXT
    ),
    "DeepMedic lists": set_of(
        "deepmedic", "*_*.cfg", "trainConfig.cfg", make=small_deepmedic, mutators=TEXT
    ),
    "bank sample": Format(
        make_bank, "bank/*.safetensors", read_bank, renote=rehash_sample
    ),
    "bank documents": Format(
        make_bank, "bank/*.json", read_bank, mutators=JSON, renote=renote_bank
    ),
    "run safetensors": Format(
        make_run, "run/**/*.safetensors", read_tensors, renote=rehash_weights
    ),
    "run manifest": Format(
        make_run, "run/manifest.json", open_run, mutators=JSON, renote=redigest
    ),
    "run state": Format(
        make_run, "run/checkpoints/*/state.json", resume_run, mutators=JSON, renote=redigest
    ),
    "run metrics.csv": Format(make_run, "run/metrics.csv", resume_run, mutators=TEXT),
    "subjects .csv": Format(texts, "subjects.csv", read_subjects, mutators=TEXT),
    "boxes .csv": Format(texts, "boxes.csv", read_boxes, mutators=TEXT),
    "draw log": Format(texts, "draws-host-1.csv", read_log, mutators=TEXT),
    "chain": Format(texts, "chain.yaml", read_chain, mutators=YAML),
    "recipe": Format(texts, "recipe.yaml", read_recipe, mutators=YAML),
    "benchmark plan": Format(texts, "plan.yaml", read_plan, mutators=YAML),
    "paper's plan": Format(texts, "table.yaml", read_table, mutators=YAML),
    "settings of --set": Format(texts, "settings.txt", read_settings, mutators=TEXT),
}  # fmt: skip
