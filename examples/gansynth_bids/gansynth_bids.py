"""Samples as a BIDS derivative: ``gansynth sample RUN --format bids --set suffix=T2w -o OUT``."""

import csv
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gansynth import Item, Register, Writer, WriterOptions, hookimpl, write_volume

gansynth_api = 4


class BidsOptions(WriterOptions):
    """What BIDS asks and samples do not know."""

    suffix: str = Field("T1w", description="suffix of images of a single channel; else its name")


class BidsWriter(Writer):
    """A folder for each sample, and the two files that every data set has."""

    name = "bids"
    Options = BidsOptions
    ndim = frozenset({3})
    options: BidsOptions
    rows: tuple[tuple[str, str], ...] = ()

    def add(self, item: Item) -> None:
        """Write ``sub-NAME/anat``: an image for each channel, and the label map."""
        assert item.affine is not None
        subject = "sub-" + "".join(c for c in item.name if c.isalnum())
        stem = self.folder / subject / "anat" / subject
        names = self.schema.channels if len(item.image) > 1 else (self.options.suffix,)
        for name, channel in zip(names, item.image, strict=True):
            path = stem.with_name(f"{subject}_{name}.nii.gz")
            write_volume(path, channel, item.affine, synthetic=item.synthetic)
        if item.mask is not None:
            path = stem.with_name(f"{subject}_dseg.nii.gz")
            write_volume(path, item.mask, item.affine, synthetic=True)
        self.rows += ((subject, item.facts.get("class") or "n/a"),)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write ``participants.tsv`` and ``dataset_description.json``."""
        with open(self.folder / "participants.tsv", "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, delimiter="\t", lineterminator="\n")
            table.writerows([("participant_id", "class"), *self.rows])
        made = {"Name": "gansynth", "Version": about["gansynth"]}
        document = {"Name": "Samples", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
        text = json.dumps({**document, "GeneratedBy": [made], "gansynth": about}, indent=1)
        (self.folder / "dataset_description.json").write_text(text, encoding="utf-8")


@hookimpl
def register_writers(register: Register) -> None:
    """Offer ``bids``."""
    register("bids", lambda: BidsWriter)
