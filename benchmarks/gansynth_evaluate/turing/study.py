"""The folder of a reader study, and the pages that raters get.

``study.json`` has everything but the voxels: options, origin and truth of each image, and a secret.
``images.npy`` is uint8 (N, C, D, H, W), in random order. ``pages/rater-1.html`` is what the first
rater gets: it has the images, each under a code of this rater's own, and nothing of what they are.
Codes and order follow from the secret, so a page can be written again, and more can be added. Only
the owner may read the folder: it holds pictures of patients, and the truth.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from gansynth.report.page import policy, template
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import (
    check_sha256,
    digest_of,
    disk_errors,
    read_own,
    sha256_file,
    whole_folder,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.version import build, check_format
from gansynth_evaluate.turing.image_selection import TuringOptions

VERSION = 4
STUDY, IMAGES, PAGES = "study.json", "images.npy", "pages"
MOST_RATERS = 100
SCRIPTS = ("viewer.js", "main.js")
TRUSTED = "require-trusted-types-for 'script'; trusted-types 'none'"
_HERE = "<!-- images -->"
_RESTORE = "restore it from a copy, or make another study with --name"


@dataclass(frozen=True)
class Study:
    """A reader study."""

    folder: Path
    document: Mapping[str, Any]  # `study.json`

    @property
    def id(self) -> str:
        """Short unique name."""
        return str(self.document["id"])

    @property
    def key(self) -> list[dict[str, Any]]:
        """The truth of each image, by its number."""
        images: list[dict[str, Any]] = self.document["key"]
        return images

    def codes(self, rater: int) -> dict[str, int]:
        """The images as a rater sees them: code -> number, in the order of the rater's page."""
        secret = bytes.fromhex(self.document["secret"])
        codes = {
            hmac.digest(secret, f"{rater} {number}".encode(), "sha256").hex()[:24]: number
            for number in range(len(self.key))
        }
        return dict(sorted(codes.items()))

    def write_pages(self, raters: int) -> list[Path]:
        """Write the pages of the first raters that are not there yet; all their paths."""
        if not 1 <= raters <= MOST_RATERS:
            raise UsageFault(
                "turing-test.raters-out-of-range", f"--raters {raters}: expected 1 to {MOST_RATERS}"
            )
        pages = {n: self.folder / PAGES / f"rater-{n}.html" for n in range(1, raters + 1)}
        missing = [rater for rater, path in pages.items() if not path.exists()]
        images = self._images() if missing else None
        with disk_errors(self.folder):
            (self.folder / PAGES).mkdir(exist_ok=True)
        for rater in missing:
            assert images is not None
            about = {"study": self.id, "rater": rater, "codes": [*self.codes(rater)]}
            for key in ("channels", "size", "spacing"):
                about[key] = self.document["images"][key]
            shown = (images[number].tobytes() for number in self.codes(rater).values())
            text = self.document["asked"]["instructions"]
            write_bytes_atomic(pages[rater], *page_parts(about, text, shown))
        return [*pages.values()]

    def _images(self) -> npt.NDArray[np.uint8]:
        path = self.folder / IMAGES
        check_sha256(path, self.document["images"]["sha256"], f"{STUDY}; {_RESTORE}")
        images: npt.NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return images


def default_folder(run: Path, name: str = "study") -> Path:
    """The default folder of a run's study."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageFault(
            "turing-test.study-name-refused",
            f"--name {name}: expected letters, digits, '.', '_' and '-', e.g. --name radiologists",
        )
    return run / "turing" / name


def make_study(
    run: Path,
    folder: Path | None = None,
    options: TuringOptions | None = None,
    *,
    raters: int = 1,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
    reporter: Reporter | None = None,
) -> tuple[Study, list[Path]]:
    """Make a reader study of a run, or add raters to the one made with these options.

    Args:
        folder: of the study; ``RUN/turing/study`` if None.
        options: what is shown; defaults if None.
        raters: number of pages; those that are there stay as they are.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.

    Returns:
        The study, and the page of each rater.
    """
    folder, options = folder or default_folder(run), options or TuringOptions()
    if (folder / STUDY).exists():
        study = open_study(folder)
        _check_same(study, options)
        return study, study.write_pages(raters)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            "turing-test.folder-without-study-exists",
            f"{folder}: exists already and holds no study, expected a new folder; choose another "
            "with -o or --name",
        )
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_moved
    from gansynth_evaluate.turing.pictures import gather

    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    pictures = gather(opened, source, options, reporter or NullReporter())
    with whole_folder(folder) as temporary, disk_errors(folder):
        temporary.chmod(0o700)
        np.save(temporary / IMAGES, pictures.images, allow_pickle=False)
        document = {
            "version": VERSION,
            "gansynth": build(),
            "id": secrets.token_hex(4),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "run": {"id": opened.run_id, "generator": opened.generator.name},
            "asked": options.to_json(),
            "images": {
                "sha256": sha256_file(temporary / IMAGES),
                "channels": list(pictures.schema.channels),
                "size": list(pictures.images.shape[2:]),
                "spacing": [1.0, *pictures.schema.spacing][-3:],
            },
            "about": pictures.about,
            "secret": secrets.token_hex(32),
            "key": pictures.key,
        }
        document = json.loads(json.dumps(document))  # as it is read back
        write_json_atomic(temporary / STUDY, dict(document, digest=digest_of(document)))
    study = Study(folder, document)
    return study, study.write_pages(raters)


def open_study(folder: Path) -> Study:
    """Open a study."""
    path = folder / STUDY
    if not path.is_file():
        raise DataFault(
            "turing-test.no-study",
            f"{folder}: no {STUDY} here, expected a study that gansynth turing-test made; make "
            "one: gansynth turing-test RUN",
        )
    document = read_own(path, hint=_RESTORE)
    way = "make the study again"
    check_format(path, document.get("version"), VERSION, document.get("gansynth"), way)
    if document.get("digest") != digest_of(document):
        raise IntegrityFault(
            "turing-test.study-changed", f"{path}: was changed after it was written; {_RESTORE}"
        )
    return Study(folder, document)


def _check_same(study: Study, options: TuringOptions) -> None:
    requested, made = json.loads(json.dumps(options.to_json())), study.document["asked"]
    for key in requested:
        if requested[key] != made.get(key):
            raise UsageFault(
                "turing-test.study-settings-differ",
                f"{study.folder}: holds a study made with {key} {made.get(key)!r}, asked for "
                f"{requested[key]!r}; expected the same. Make another one: --name NAME",
            )


def page_parts(
    about: Mapping[str, Any], instructions: str, images: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the bytes of a page, in order.

    Args:
        about: study, rater, codes of the images, and channels, size and spacing of all; JSON-able.
        instructions: text that the rater reads before the first image.
        images: voxels uint8 (C, D, H, W) of each image, all of one size.
    """
    from jinja2 import Environment, StrictUndefined

    style = template("style.css", __package__)
    script = "".join([template(name, __package__) for name in SCRIPTS])
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        template("page.html", __package__)
    )
    text = page.render(
        policy=f"{policy(style, script)}; {TRUSTED}",
        style=Markup(style),
        script=Markup(script),
        about=Markup(json.dumps(about).replace("<", "\\u003c")),
        count=len(about["codes"]),
        rater=about["rater"],
        instructions=instructions,
    )
    before, _, after = text.partition(_HERE)
    yield before.encode()
    for image in images:
        yield b'<script type="text/plain" class="image">' + base64.b64encode(image) + b"</script>\n"
    yield after.encode()
