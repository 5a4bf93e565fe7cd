"""nnU-Net's three folders, and what lies there of a data set: names, raw files, subjects, folds."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gansynth import (
    CaseFiles,
    DataFault,
    DoctorLine,
    EnvironmentFault,
    FoldSplit,
    SourceRequest,
    SplitsRequest,
    UsageFault,
    VolumeSet,
    disk_errors,
    read_json,
    write_json_atomic,
)
from gansynth.core.volumes import endings
from gansynth.data.folds import (
    grouped_splits,
    read_subjects,
    splits_of_sites,
    table_text,
)
from gansynth.data.listing import Collector, described
from gansynth.runtime.errors import refuse_closed
from gansynth.runtime.files import sha256_file, write_bytes_atomic

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
QUOTES = "'\""
NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_.-]+")
PARTS, TESTS = ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")
SPLITS = "splits_final.json"
SUBJECTS = "gansynth_subjects.csv"
FOLDS = 5  # nnU-Net's own
FINGERPRINT, TRUTH = "dataset_fingerprint.json", "gt_segmentations"


def describes(kind: str, folder: Path) -> bool:
    """Whether a folder is a data set of nnU-Net, raw or preprocessed, or within or around one."""
    folder = next(iter(_meant(folder)), folder)
    if is_preprocessed(folder):
        return kind == "nnunet"
    keys = set(described(folder / "dataset.json"))
    firsts = (folder / PARTS[0]).glob("*_0000.*")
    numbered = any(not (folder / PARTS[1] / file.name).exists() for file in firsts)
    here = "dataset" in keys or (folder / "imagesTr").is_dir()
    v2 = {"channel_names", "file_ending"} <= keys and here
    # Of version 1, or without file_ending: refused, with the way out.
    lacking = bool(keys & {"modality", "channel_names"}) and numbered
    return kind == "nnunet-raw" and (v2 or lacking)


def is_preprocessed(folder: Path) -> bool:
    """Whether nnU-Net has preprocessed a data set into a folder."""
    there = (folder / "dataset.json").is_file()
    return there and ((folder / TRUTH).is_dir() or (folder / FINGERPRINT).is_file())


@dataclass(frozen=True)
class NnunetRoot:
    """nnU-Net's folders ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``."""

    raw: Path
    preprocessed: Path
    results: Path
    named: str | None = None
    """The folder that names them on a command line; None where the environment does."""

    @classmethod
    def find(cls, root: str | Path | None = None) -> NnunetRoot:
        """Find the folders below ``root``; without one, by nnU-Net's variables, or ``./nnunet``."""
        base = Path(root or "nnunet").absolute()
        named = {} if root is not None else os.environ
        raw, preprocessed, results = [
            Path(named.get(name) or base / name).absolute() for name in VARIABLES
        ]
        return cls(raw, preprocessed, results, None if root is None else str(root))

    @classmethod
    def of(cls, where: str, root: str | Path | None) -> tuple[NnunetRoot, str]:
        """Return nnU-Net's folders and a data set's full name; see ``find`` and ``dataset``.

        ``where`` may also be the data set's own folder, raw or preprocessed. The other folders are
        then beside that one's, unless ``root`` or nnU-Net's variables name them.
        """
        refuse_other_nnunet()
        folder = own_folder(where)
        if folder is None:
            found = cls.find(root)
            return found, found.dataset(where)
        named = root is not None or any(map(os.environ.get, VARIABLES))
        found = cls.find(root if named else folder.parent.parent)
        if is_preprocessed(folder):
            return replace(found, preprocessed=folder.parent), folder.name
        return replace(found, raw=folder.parent), folder.name

    def request(self, dataset: str) -> SourceRequest:
        """Return how a data set is named on a command line."""
        return SourceRequest("nnunet", dataset[7:10], root=self.named)

    @property
    def homes(self) -> tuple[Path, Path, Path]:
        """The three folders."""
        return self.raw, self.preprocessed, self.results

    def variables(self) -> dict[str, str]:
        """Return the environment variables of nnU-Net, for a child process."""
        return dict(zip(VARIABLES, map(str, self.homes), strict=True))

    def datasets(self) -> tuple[str, ...]:
        """Return names of all data sets in the three folders, sorted."""
        entries = [entry for home in self.homes for entry in home.glob("Dataset*")]
        return tuple(sorted({e.name for e in entries if e.is_dir() and NAME.fullmatch(e.name)}))

    def free_id(self, number: int) -> int:
        """Return the next id that no data set has."""
        used = {int(name[7:10]) for name in self.datasets()}
        return min(set(range(1, 1000)) - used, key=lambda other: (other < number, other))

    def dataset(self, where: str) -> str:
        """Return the full name of a data set: ``004``, ``4`` or ``Dataset004_Hippocampus``."""
        datasets = self.datasets()
        if where in datasets:
            return where
        by_id = re.fullmatch(r"\d{1,3}", where)
        matching = [name for name in datasets if by_id and int(name[7:10]) == int(where)]
        if len(matching) > 1:
            raise UsageFault(
                "nnunet.data-set-id-ambiguous",
                f"nnunet:{where}: id {int(where)} belongs to several data sets "
                f"({', '.join(matching)}), expected one; rename or remove the others",
            )
        if not matching:
            refuse_closed(self.raw)
            refuse_closed(self.preprocessed)
            for name in VARIABLES:
                text = os.environ.get(name, "")
                if text[:1] in ("'", '"', "~"):  # nnU-Net takes them for a part of the path
                    raise DataFault(
                        "nnunet.root-variable-not-path",
                        f"{name} is {text}, expected a path without quotes or ~; set it again: "
                        f"export {name}={os.path.expanduser(text.strip(QUOTES))}",
                    )
            raise DataFault(
                "nnunet.no-such-data-set",
                f"nnunet:{where}: no such data set in {self.raw} or {self.preprocessed}, expected "
                f"an id (004) or one of: {', '.join(datasets) or 'none'}. Name nnU-Net's folders "
                "with --root or the variable nnUNet_raw, or make it from your data: gansynth "
                "import SOURCE nnunet:ID",
            )
        return matching[0]


def located(where: str) -> str:
    """Return a data set's folder as an absolute path; its name or number as it is."""
    folder = own_folder(where)
    return where if folder is None else str(folder)


def own_folder(where: str) -> Path | None:
    """Return a data set's folder, absolute, if a path names one; else None."""
    found = _meant(Path(where).expanduser().absolute())
    if len(found) > 1:
        names = " or ".join([shlex.quote(str(folder)) for folder in found])
        raise UsageFault(
            "nnunet.data-sets-several",
            f"{where}: holds {len(found)} data sets, expected one; name it: {names}",
        )
    return found[0] if found else None


def _meant(folder: Path) -> list[Path]:
    """Return the data sets that a folder is meant to name: its own, or what nnU-Net has there."""
    around = folder / VARIABLES[0] if (folder / VARIABLES[0]).is_dir() else folder
    folders = [folder]
    if folder.name in (*PARTS, *TESTS):
        folders = [folder.parent]
    elif around.name in VARIABLES[:2]:
        folders = sorted(around.iterdir())
    return [folder for folder in folders if (folder / "dataset.json").is_file()]


def refuse_other_nnunet() -> None:
    """Refuse (EnvironmentFault) an nnU-Net that is missing, or of an unknown version.

    What is not documented of nnU-Net changes with its versions, and is imported later.
    """
    line = DoctorLine.of_package("nnunetv2", essential=True)
    if line.state != "ok":
        raise EnvironmentFault("nnunet.version-unknown", f"{line.what}: {line.text}")


# -- dataset.json ----------------------------------------------------------------------------------


class LabelTable(NamedTuple):
    """The integer labels of ``dataset.json``."""

    # name -> value, by increasing value, background and ignore label included; a value that only
    # occurs inside regions is called `label_<value>`
    values: dict[str, int]
    ignore: int | None  # value of the ignore label
    regions: dict[str, tuple[int, ...]]  # name -> values, if nnU-Net trains on regions; else empty


def read_labels(doc: Mapping[str, Any], where: Path) -> LabelTable:
    """Read the key ``labels`` of a ``dataset.json``; DataFault: nnU-Net does not take it."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    try:
        manager = LabelManager(doc["labels"], doc.get("regions_class_order"))
        present = [int(value) for value in manager.all_labels]
        table = {
            str(name): tuple(map(int, value)) if isinstance(value, list) else (int(value),)
            for name, value in doc["labels"].items()
        }
        if min(present) < 0 or not all(table.values()):
            raise ValueError("a label is negative or empty")
    except Exception as error:  # nnU-Net asserts
        words = " ".join(str(error).split())
        raise DataFault(
            "nnunet.labels-invalid",
            f"{where}: labels is {doc.get('labels')!r:.200}, expected names with integers from 0 "
            f"(or lists of them) and 'background': 0; nnU-Net says: {words:.200}",
        ) from error
    names = {values[0]: name for name, values in table.items() if len(values) == 1}
    present += [] if manager.ignore_label is None else [manager.ignore_label]
    regions = {k: v for k, v in table.items() if k not in ("background", "ignore")}
    return LabelTable(
        {names.get(value, f"label_{value}"): value for value in sorted(present)},
        manager.ignore_label,
        regions if manager.has_regions else {},
    )


def hidden_regions(doc: Mapping[str, Any], labels: LabelTable) -> str:
    """Return what nnU-Net can never predict right by its order of regions, and a way out; or "".

    It paints each region with a label, in the order of ``labels``: a later one covers an earlier.
    """
    regions = {name: set(values) - {labels.ignore} for name, values in labels.regions.items()}
    asked = doc.get("regions_class_order") or ()
    if not isinstance(asked, list) or not all([isinstance(value, int) for value in asked]):
        return ""  # which nnU-Net itself refuses
    order = [*map(int, asked)]

    def painted(value: int, names: Sequence[str], colours: Sequence[int]) -> int:
        covering = [
            colour for name, colour in zip(names, colours, strict=True) if value in regions[name]
        ]
        return covering[-1] if covering else 0

    wrong = {}
    for value in sorted(set().union(*regions.values())):
        found = painted(value, [*regions], order)
        if found != value:
            wrong[value] = found
    if not wrong:
        return ""
    text = ", ".join([f"{value} becomes {found}" for value, found in wrong.items()])
    names = sorted(regions, key=lambda name: -len(regions[name]))
    colours = []
    for number, name in enumerate(names):  # what no smaller region covers
        left = regions[name].difference(*[regions[later] for later in names[number + 1 :]])
        colours.append(min(left, default=min(regions[name])))
    return (
        f"regions_class_order is {order}, and a later region covers an earlier one: label {text} "
        "in what nnU-Net predicts, however well it has learnt. Name the regions from the largest "
        f"to the smallest, {', '.join(names)}, and regions_class_order {colours}"
    )


def read_channels(doc: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Read the key ``channel_names`` (or the older ``modality``) of a ``dataset.json``."""
    names = doc.get("channel_names", doc.get("modality"))
    numbers = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not numbers or set(names) != set(numbers):
        raise DataFault(
            "nnunet.channel-names-invalid",
            f"{where}: channel_names is {names!r:.200}, expected names numbered from 0, for "
            'example {"0": "MRI"}',
        )
    return tuple(str(names[number]) for number in numbers)


# -- raw files -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RawSet:
    """A raw data set; its cases are listed, not read, those that lack files included."""

    doc: Mapping[str, Any]  # `dataset.json`
    ending: str  # of its files, e.g. `.nii.gz`
    listing: VolumeSet
    hidden: tuple[Path, ...] = ()  # files in `imagesTr` that nnU-Net would take for cases

    @property
    def ids(self) -> list[str]:
        """Its training cases, sorted."""
        return [entry.case for entry in self.listing.entries]


def raw_set(root: NnunetRoot, dataset: str) -> RawSet:
    """List a raw data set; DataFault: an unusable ``dataset.json``, or no training cases."""
    folder, home = root.raw / dataset, root.preprocessed / dataset
    path = folder / "dataset.json"
    doc = read_json(path, hint="see nnU-Net's dataset format")
    ending = doc.get("file_ending")
    if ending is None and "modality" in doc:
        named = re.fullmatch(r"(?:Dataset|Task)(\d{2,3})_(.+)", dataset)
        number, short = (int(named[1]), named[2]) if named else (1, dataset)
        new = f"Dataset{root.free_id(number):03d}_{short}"
        raise DataFault(
            "nnunet.raw-data-version-old",
            f"{path}: is of nnU-Net's version 1 (modality, no file_ending), expected version 2; "
            f"convert it: nnUNetv2_convert_old_nnUNet_dataset {folder} {new}. Where one file has "
            f"all channels, it is of the Decathlon: msd:{folder}",
        )
    usual = _usual_ending(folder)
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataFault(
            "nnunet.file-ending-invalid",
            f'{path}: file_ending is {ending!r}, expected "file_ending": "{usual}" as most of its '
            "images have; write it there",
        )
    if ending.lower() not in endings(listed=False):
        raise DataFault(
            "nnunet.file-ending-not-read",
            f"{path}: file_ending is {ending!r}, expected one of "
            f"{', '.join(endings(listed=False))}; convert the files, or install a plugin that "
            "reads them (gansynth help plugin_formats)",
        )
    # One file may hold several channels, as a colour picture does.
    several = ending not in (".nii", ".nii.gz")
    channels, labels = read_channels(doc, path), read_labels(doc, path)
    collector, hidden = Collector(path, allow=True), ()
    if "dataset" in doc:  # lists files that lie elsewhere
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        try:
            listed = get_filenames_of_train_images_and_targets(str(folder), deepcopy(doc))
            for case, files in listed.items():
                images = tuple(map(Path, files["images"]))
                assert images
                collector.add(CaseFiles(case, images, Path(files["label"])))
        except Exception as error:
            raise DataFault(
                "nnunet.case-list-invalid",
                f"{path}: dataset is {doc['dataset']!r:.200}, expected 'images': [files] and "
                "'label': file of each case",
            ) from error
    else:  # nnU-Net's own listing of folders forks twelve processes, and leaves out what is missing
        files = {part: sorted((folder / part).glob(f"*{ending}")) for part in PARTS}
        hidden = tuple(file for file in files["imagesTr"] if file.name.startswith("."))
        numbered: dict[str, list[Path]] = defaultdict(list)
        for file in files["imagesTr"]:
            match = re.fullmatch(rf"([^.].*)_\d{{4}}{re.escape(ending)}", file.name)
            if match:
                numbered[match[1]].append(file)
        labelled = [file.name.removesuffix(ending) for file in files["labelsTr"]]
        cases = set(numbered) | {name for name in labelled if name[:1] not in ("", ".")}
        for case in cases:
            names = [f"{case}_{number:04d}{ending}" for number in range(len(channels))]
            found = [folder / "imagesTr" / name for name in names]
            if several:
                found = numbered.get(case, found[:1])
            collector.add(CaseFiles(case, tuple(found), folder / "labelsTr" / f"{case}{ending}"))
    listing = collector.volumes(
        f"nnunet-raw:{dataset}",
        "cases",
        channels=channels,
        labels=labels.values,
        stacked=several,
        total=len(channels) if several else None,
    )
    if not listing.entries:
        refuse_closed(folder / "imagesTr")
        hint = ""
        if usual != ending:
            hint = f"; images there end in {usual}: name that, file_ending in {path.name}"
        raise DataFault(
            "nnunet.no-training-cases",
            f"{folder}: no training cases, expected imagesTr/CASE_0000{ending} and "
            f"labelsTr/CASE{ending}{hint}",
        )
    listing = replace(
        listing,
        splits=home / SPLITS,
        subjects=home / SUBJECTS,
        one_subject=one_subject(root, dataset),
    )
    return RawSet(doc, ending, listing, hidden)


def _usual_ending(folder: Path) -> str:
    """Return what most first channels of a raw data set end in; nnU-Net's own without any."""
    firsts = (folder / PARTS[0]).glob("?*_0000.*")
    found = Counter([".nii.gz", *[file.name.partition("_0000")[2] for file in firsts]])
    found[".nii.gz"] -= 1
    return found.most_common(1)[0][0]


# -- subjects and folds ----------------------------------------------------------------------------


def known_subjects(preprocessed: Path, ids: Iterable[str], subjects: str | None) -> dict[str, str]:
    """Return subjects as requested, else as imported, else every case is its own subject."""
    table = preprocessed / SUBJECTS
    if subjects is None and not table.is_file():
        return {case: case for case in ids}
    return read_subjects(subjects or str(table), ids)


def one_subject(root: NnunetRoot, dataset: str) -> str:
    """Return the command that gives cases one subject, and makes the folds by it."""
    return root.request(dataset).command(SplitsRequest, subjects="FILE", force=True)


def write_splits(
    folder: Path,
    splits: list[FoldSplit],
    subject_of: Mapping[str, str],
    *,
    refusal: str = "",
) -> None:
    """Write ``splits_final.json``, and the cases' subjects beside it.

    Args:
        folder: the data set's folder in ``nnUNet_preprocessed``; made if needed.
        refusal: the way out, where a different split is refused. Else it is replaced, and the old
            one is kept as ``splits_final.<hash>.json``.
    """
    path = folder / SPLITS
    if path.is_file() and read_json(path, expected=list) != splits:
        if refusal:
            raise UsageFault(
                "nnunet.other-split-present",
                f"{path}: holds another split, expected none or this one; models trained with it "
                f"would no longer fit. {refusal}",
            )
        with disk_errors(path):
            path.rename(folder / f"splits_final.{sha256_file(path)[:8]}.json")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = table_text(("case", "subject"), sorted(subject_of.items()))
    write_bytes_atomic(folder / SUBJECTS, text.encode())
    write_json_atomic(path, splits)


def make_splits(request: SplitsRequest) -> list[FoldSplit]:
    """Implement ``gansynth splits nnunet:ID``: group the data set's cases by subject."""
    source = request.request
    root, dataset = NnunetRoot.of(source.where, source.root)
    folder = root.preprocessed / dataset
    if (root.raw / dataset).is_dir() or not folder.is_dir():
        ids = raw_set(root, dataset).ids
    else:  # preprocessed elsewhere; only the preprocessed folder was copied here
        ids = sorted({path.stem for path in folder.glob("*/*.pkl")})
    subject_of = known_subjects(folder, ids, source.subjects)
    if request.sites is not None:
        splits = splits_of_sites(request.sites, subject_of)
    else:
        subjects = len(set(subject_of.values()))
        usual = max(2, min(request.folds, subjects))
        folds = request.folds if "folds" in request.given else usual
        splits = grouped_splits(ids, subject_of, folds, request.seed)
    typed = shlex.join(["gansynth", *request.replace(force=True).command_line])
    refusal = "" if request.force else f"Replace it, and keep it under another name: {typed}"
    write_splits(folder, splits, subject_of, refusal=refusal)
    return splits
