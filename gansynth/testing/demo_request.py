"""``gansynth demo``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gansynth.core.requests.base import Folder, Opt, Request


class DemoRequest(Request):
    """Run every step on phantoms: no data and no GPU needed.

    Simulates brains with a glioma, and fits a generator on one fold of their slices. Trains an
    unmodified nnU-Net with samples mixed in on the fly, and as long without. Writes pictures and
    a summary, in one to three minutes. Results on phantoms prove nothing about patients.
    """

    settings: ClassVar[str] = ""
    out: Annotated[Folder, Opt(flags=("-o", "--out"), called="-o")]
    """Folder for all results; the same demo in it is gone on with, or kept if it is finished."""
    seed: int = Field(default=0, ge=0)
    """Seeds phantoms, weights and samples."""
    long: bool = False
    """Volumes of four channels, which takes longer; with --phantoms more and finer ones."""
    phantoms: Literal["nnunet", "deepmedic", "brats", "tissues", "livers", "yolo"] | None = None
    """Write phantoms and stop. nnunet, deepmedic, brats: gliomas as a raw data set of nnU-Net, as
    lists and configurations of DeepMedic, or as BraTS folders. tissues: healthy brains with their
    tissues. livers: CT with lesions. yolo: slices of gliomas with boxes."""
    channels: Annotated[str | None, Opt(metavar="NAMES", needs="phantoms=deepmedic")] = None
    """Sequences of --phantoms deepmedic, of T1,T1c,T2,FLAIR. [default: FLAIR,T1c]"""
    force: bool = False
    """Replace an earlier demo in this folder."""
