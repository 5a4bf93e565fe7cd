"""Every format that gansynth reads: how a valid sample is made, and how gansynth reads it."""

import csv
import gzip
import hashlib
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml

from gansynth.bank.draw_log import summarise
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.bank.store import _DIGITS, content_of
from gansynth.conditions.boxes import BoxFile
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.data.folds import read_subjects
from gansynth.fitting.composite_spec import asked_for
from gansynth.fitting.recipe import check_settings, find_recipe
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import digest_of, parse_json
from gansynth.sampling.open_run import load_run
from gansynth.sampling.replay import read_record
from gansynth.sampling.run_source import open_source
from gansynth.training.loggers import MetricsLog
from gansynth_benchmark.papers.plan import find_plan
from gansynth_benchmark.plan_file import read_plan
from gansynth_nnunet.cases import PreprocessedArrays
from tests.banks import write_bank
from tests.data import sets
from tests.deepmedic_sets import toy_deepmedic
from tests.fuzz.mutate import BYTES, JSON, TEXT, Mutator, documents
from tests.yolo_sets import toy_yolo

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


def found_errors(request: SourceRequest) -> list[str]:
    found = installed().check(request.kind)(request, lambda done, of: None).findings
    return [finding.message for finding in found if finding.level == "error"]


def refuse_any(errors: Sequence[str]) -> None:
    if errors:
        raise DataFault("test.fault", errors[0])


def read_set(asked: Callable[[Path], SourceRequest], folder: Path, file: Path) -> None:
    """Check a data set, then read its cases as a fit does."""
    request = asked(folder)
    errors = found_errors(request)
    source = open_source(request)
    for case in source.train_ids:
        source.load(case)
    refuse_any(errors)


def make_set(kind: str, folder: Path) -> None:
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
    people = None if kind in ("yolo", "coco", "deepmedic", "manifest") else r"([a-z]+)_\d"

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
    toy_yolo(folder, train=3, val=1, test=0, size=16, most=2)


def small_deepmedic(folder: Path) -> None:
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


def nnunet_raw(folder: Path) -> None:
    raw = folder / "nnUNet_raw" / "Dataset501_Toy"
    for number in range(2):
        sets.save(raw / f"imagesTr/p{number}_0000.nii.gz", sets.volume(number))
        sets.save(raw / f"labelsTr/p{number}.nii.gz", sets.lesion(number))
    document = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "organ": [1, 2], "lesion": 2},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(document))


def read_raw(folder: Path, file: Path) -> None:
    refuse_any(found_errors(SourceRequest("nnunet", "501", root=str(folder))))


def nnunet_preprocessed(folder: Path) -> None:
    from tests.conftest import SMALL, Toy, prepare, shortcuts, write_raw

    toy = Toy(folder)
    write_raw(toy.raw)
    with shortcuts():
        prepare(toy.request(plans=None), ("3d_fullres",), processes=1, **SMALL)
    read_preprocessed(folder, folder)  # writes the folds


def read_preprocessed(folder: Path, file: Path) -> None:
    from tests.conftest import Toy

    source = open_source(Toy(folder).request())
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
    if file.name == "000.b2nd":
        _KNOWN[folder] = PreprocessedArrays(file.parent, "preprocess again")
    _KNOWN[folder].read(file.name)


# -- banks, runs -----------------------------------------------------------------------------------


def make_bank(folder: Path) -> None:
    schema = Schema(("T1",), {"background": 0, "organ": 1}, (1.0, 1.0), "HW")
    lineage = Lineage("toy:2", "0", (CaseRecord("case_1", "person_1", "1" * 64),))
    boxes = Boxes(np.array([[1, 1, 4, 5]], np.float32), np.array([0]))
    rng = np.random.default_rng(0)

    def sample() -> Sample:
        image, labels = rng.normal(size=(1, 9, 8)), rng.integers(0, 2, (9, 8))
        told = {"case": "case_1"}
        return Sample(image.astype(np.float32), labels.astype(np.int16), boxes, told)

    pairs: list[Any] = [(sample(), {"places": np.arange(4)}) for _ in range(3)]
    write_bank(folder / "bank", schema, lineage, pairs)


def read_bank(folder: Path, file: Path) -> None:
    """Verify a bank, as ``--bank`` does, and read every sample."""
    verify_bank(folder / "bank")
    reader = BankReader(folder / "bank")
    for name in reader.ids():
        reader.read(name)


def rehash_sample(folder: Path, file: Path) -> None:
    """Write the hash of a sample's bytes into its header, and into the bank's record."""
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

    tiny = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "patch": "6x6x6", "steps": 2}
    loop = {"batch_size": 1, "precision": "fp32", "log_every": 1, "checkpoint_every": 1}
    settings = {key: str(value) for key, value in {**tiny, **loop}.items()}
    how: dict[str, Any] = {"edits": (), "device": "cpu", "reporter": NullReporter()}
    fit("cgan3d", sets.pairs(folder / "data"), folder / "run", settings=settings, **how)


def open_run(folder: Path, file: Path) -> None:
    """As ``sample`` and ``augment`` do."""
    run = RunFolder(folder / "run")
    _ = run.space, run.schema, run.lineage, run.edits, run.request
    load_run(run, "cpu")


def resume_run(folder: Path, file: Path) -> None:
    """As a resumed fit does."""
    from gansynth.training.checkpoint import latest

    latest(folder / "run" / "checkpoints")
    MetricsLog(folder / "run", start=2)


def read_tensors(folder: Path, file: Path) -> None:
    resume_run(folder, file)
    open_run(folder, file)


def redigest(folder: Path, file: Path) -> None:
    """Note the digest of a changed document in it."""
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


def read_log(folder: Path, file: Path) -> None:
    summarise(folder)
    read_record(f"{file}:3")


def read_settings(folder: Path, file: Path) -> None:
    lines = (line.partition("=") for line in file.read_text("utf-8", "replace").split("\n"))
    settings = {key: value for key, _, value in lines}
    check_settings("cgan3d", settings, settings)


def texts(folder: Path) -> None:
    """Write what users write by hand."""
    plugins = ROOT / "plugins"
    shutil.copy(plugins / "gansynth_cgan3d/recipes/mmgan2020.yaml", folder / "recipe.yaml")
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
    "precision=auto\ncontext=body\nlevels=3\nbetas=0.5,0.9\ncheckpoint_every=10",
    "chain.yaml": """parts:
- {name: whole, generator: cgan3d, set: {steps: 10, width: 4, lr_generator: 0.0002}, channels: [T1]}
- {name: rest, generator: dcgan, set: {steps: 5}, channels: [T2, FLAIR], labels_by: whole}
""",
}
YAML: tuple[Mutator, ...] = (
    *TEXT,
    *[documents(yaml.safe_load, lambda doc: yaml.safe_dump(doc).encode())] * len(TEXT),
)


def text(file: str, read: Callable[[Path, Path], object]) -> Format:
    """Return the format of one of ``texts``."""
    return Format(texts, file, read, mutators=YAML if file.endswith(".yaml") else TEXT)


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
    "COCO json": set_of("coco", "train.json", mutators=JSON),
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
    "subjects .csv": text(
        "subjects.csv", lambda _, file: read_subjects(str(file), ["anna_1", "anna_2", "bert_1"])
    ),
    "boxes .csv": text("boxes.csv", lambda _, file: BoxFile.read(file)),
    "draw log": text("draws-host-1.csv", read_log),
    "chain": text("chain.yaml", lambda _, file: asked_for(str(file), None)),
    "recipe": text("recipe.yaml", lambda _, file: find_recipe(str(file))),
    "benchmark plan": text("plan.yaml", lambda _, file: read_plan(file)),
    "paper's plan": text("table.yaml", lambda _, file: find_plan(str(file))),
    "settings of --set": text("settings.txt", read_settings),
}  # fmt: skip


# -- readers that do what no reader may do, to see that it is seen ---------------------------------

SINS: dict[str, Callable[[Path], object]] = {
    "untyped": lambda folder: dict[str, int]()["key"],
    "crashes": lambda folder: os.abort(),
    "hangs": lambda folder: sum(range(10**12)),
    "memory": lambda folder: bytearray(b"x") * (1100 << 20),
    "outside": lambda folder: (folder.parent / "outside").write_text("x"),
    "outside, unpickled": lambda folder: pickle.loads(pickle.dumps(Path())),
}


def sinner(sin: Callable[[Path], object]) -> Format:
    def read(folder: Path, file: Path) -> None:
        if file.read_bytes() != TEXTS[file.name].encode():
            sin(folder)

    return Format(texts, "chain.yaml", read, mutators=TEXT)


PLANTED = {f"planted: {how}": sinner(sin) for how, sin in SINS.items()}
