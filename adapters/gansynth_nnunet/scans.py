"""Scans of any NIfTI layout, preprocessed by nnU-Net as the training cases of a data set are.

They are backgrounds of lesions (``--unlabelled``). nnU-Net itself would preprocess them so to
predict them. Preprocessed arrays are kept beside those of the training cases.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gansynth import (
    Case,
    CaseHeader,
    CaseSource,
    DataFault,
    EnvironmentFault,
    Schema,
    Space,
    UsageFault,
    VolumeSource,
    disk_errors,
)
from gansynth.core.volumes import endings
from gansynth.hosts.contract.prediction import raw_files
from gansynth.runtime.files import write_bytes_atomic
from gansynth_nnunet.cases import PreprocessedArrays

log = logging.getLogger("gansynth")

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # image (C, D, H, W), labels (1, D, H, W)


class PreprocessedSet(Protocol):
    """What is asked of the data set that scans are preprocessed for; see ``NnunetSource``."""

    folder: Path
    ending: str
    train_ids: tuple[str, ...]

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> Schema: ...

    @property
    def space(self) -> Space: ...

    @property
    def axes(self) -> str: ...

    def preprocess(self, images: Sequence[str], labels: str | None) -> Arrays: ...


class PreprocessedScans(CaseSource):
    """All cases of a source of volumes, as nnU-Net preprocesses them for a data set.

    Files may be stored along other axes than those of the training cases: they are turned first,
    which nnU-Net would not do.
    """

    def __init__(self, scans: CaseSource, own: PreprocessedSet) -> None:
        if not isinstance(scans, VolumeSource) or own.ending not in endings():
            raise UsageFault(
                "nnunet.unlabelled-not-volumes",
                f"--unlabelled {scans.request.kind}:{scans.request.where}: volumes alone are "
                f"preprocessed for {own.name}, expected nifti:, msd: or nnunet-raw:, for a data "
                f"set of volumes (its files end in {own.ending}); bring both to NIfTI by gansynth "
                "import",
            )
        self._scans, self._own, self.request = scans, own, scans.request
        self.folder = own.folder.parent / "gansynth_scans" / own.folder.name
        self._files = PreprocessedArrays(self.folder, f"remove {self.folder}, which is made again")
        self._places = self._find_channels()
        self._keys: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of scans that were read
        self._told = False

    def _find_channels(self) -> list[int]:
        there, wanted = self._scans.channels, self._own.schema.channels
        places = self._scans.places_of(wanted)
        if places is None:
            raise UsageFault(
                "nnunet.unlabelled-channels-differ",
                f"--unlabelled {self.request.kind}:{self.request.where}: its channels are "
                f"{', '.join(there)}, expected {', '.join(wanted)} among them; if they are these, "
                "number the files in this order: CASE_0000.nii.gz, CASE_0001.nii.gz, ...",
            )
        return places

    @property
    def name(self) -> str:
        return self._scans.name

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self._scans.train_ids

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return self._scans.held_out_ids

    @cached_property
    def schema(self) -> Schema:
        """Channels and voxels of the training cases, labels of the scans' own files."""
        labels = self._scans.schema
        return replace(self._own.schema, labels=dict(labels.labels), ignore=labels.ignore)

    @property
    def space(self) -> Space:
        return self._own.space

    def header(self, case_id: str) -> CaseHeader:
        if case_id not in self._shapes:
            self._arrays(case_id)
        subject = self._scans.header(case_id).subject
        return CaseHeader(subject, self._shapes[case_id], self.schema.spacing)

    def load(self, case_id: str) -> Case:
        """Read one case. Its labels are 0 in the body and -1 outside, unless it has a label map."""
        image, labels = self._arrays(case_id)
        subject = self._scans.header(case_id).subject
        return Case(case_id, subject, image.astype(np.float32), labels[0].astype(np.int16))

    def _arrays(self, case_id: str) -> Arrays:
        """Return a scan's arrays, from their files if they are kept."""
        key = self._key(case_id)
        names = f"{key}.b2nd", f"{key}_seg.b2nd"
        kept = all([(self.folder / name).is_file() for name in names])
        if kept:
            arrays = self._files.read(names[0]), self._files.read(names[1])
        else:
            arrays = self._preprocessed(case_id)
            self._keep(names, arrays)
        self._shapes[case_id] = arrays[1].shape[1:]
        return arrays

    def _keep(self, names: Sequence[str], arrays: Arrays) -> None:
        with contextlib.suppress(EnvironmentFault):  # a folder that may not be written to
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            for name, array in zip(names, arrays, strict=True):
                write_bytes_atomic(self.folder / name, _encoded(array))

    def _key(self, case_id: str) -> str:
        """Return the name of a scan's arrays: by its bytes, and how they are preprocessed."""
        if case_id not in self._keys:
            digest = hashlib.sha256(json.dumps(self.space.host, sort_keys=True).encode())
            for file in self._scans.entry(case_id).files:
                digest.update(file.read_bytes())
            self._keys[case_id] = digest.hexdigest()[:32]
        return self._keys[case_id]

    def _preprocessed(self, case_id: str) -> Arrays:
        if not self._told:
            self._told = True
            log.info(
                "%s: scans are preprocessed by nnU-Net as the training cases are, and kept in %s",
                self.name,
                self.folder,
            )
        with tempfile.TemporaryDirectory() as scratch:
            images, labels = self._turned(case_id, Path(scratch))
            try:
                return self._own.preprocess(images, labels)
            except (AssertionError, RuntimeError, ValueError) as error:
                words = " ".join(str(error).split())
                raise DataFault(
                    "nnunet.unlabelled-image-not-preprocessed",
                    f"{images[0]}: nnU-Net does not preprocess it: {words:.300}; see: "
                    f"{self.request.check()}",
                ) from error

    def _turned(self, case_id: str, scratch: Path) -> tuple[list[str], str | None]:
        """Return a case's files, one for each channel, and its label map's, if there is one."""
        count, along = len(self._scans.channels), self._own.axes
        files = raw_files(self._scans, case_id, count, scratch, along, labels=True)
        labels = str(files[count]) if len(files) > count else None
        return [str(files[place]) for place in self._places], labels


def _encoded(array: npt.NDArray[Any]) -> bytes:
    import blosc2

    encoded: bytes = blosc2.asarray(np.ascontiguousarray(array)).to_cframe()
    return encoded
