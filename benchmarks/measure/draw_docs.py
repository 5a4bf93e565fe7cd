"""The pictures of the docs, into ``docs/images``: phantoms and simulated numbers, no patients.

    python draw_docs.py dcgan WORK        # sheets of a fit of some minutes
    python draw_docs.py turing WORK       # a reader study in a browser, two short fits
    python draw_docs.py evaluate RUN      # the report of `gansynth evaluate RUN -n 48`
    python draw_docs.py froc WORK         # FROC of made-up detections
    python draw_docs.py lesions FOLDER    # bench_lesion.py --data phantoms -o FOLDER

``WORK`` keeps phantoms and runs; a second call goes on from there. ``evaluate`` needs a run on
phantoms, for its report shows real images. ``--chromium`` names the browser.
``draw_conditions.py`` draws the edits.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import gansynth

IMAGES = Path(__file__).parents[2] / "docs" / "images"
Picture = npt.NDArray[np.uint8]


def save(screenshot: bytes, name: str, colours: int) -> None:
    """A screenshot as a small PNG."""
    from PIL import Image

    picture = Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(colours)
    picture.save(IMAGES / name, optimize=True)


# -- dcgan -----------------------------------------------------------------------------------------

SLICES = ("slices=30%-75%", "foreground=with", "window=1%:99.8%", "resize=64x64")
WGAN = (
    "objective=wgan-gp",
    "width=32",
    "max_width=256",
    "batch_size=32",
    "n_critic=2",
    "lr_generator=4e-4",
    "lr_discriminator=4e-4",
)


def dcgan(work: Path, args: argparse.Namespace) -> None:
    """Make phantoms, fit, draw ``nearest.png`` in the run."""
    from gansynth.testing.phantoms import PhantomOptions, write_phantoms

    data, run = work / "nnUNet_raw" / "Dataset999_Phantom", str(work / "run")
    if not (data / "dataset.json").exists():
        write_phantoms("nnunet", data, 40, options=PhantomOptions(spacing_mm=3.0))
    read = [f"--read={text}" for text in (*SLICES, "channels=FLAIR")]
    settings = [f"--set={text}" for text in (*WGAN, "steps=3000")]
    source = ["--data", f"slices:nnunet-raw:{data.name}", f"--root={work}", *read]
    gansynth("fit", "dcgan", "--set=with_mask=yes", *source, *settings, "-o", run)
    gansynth("sample", run, "-n24", "--sheet", "--nearest", "--seed=1")


# -- evaluate --------------------------------------------------------------------------------------

WIDTH = 1180


def evaluate(run: Path, args: argparse.Namespace) -> None:
    """Open the report in a browser, and save what it shows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium)
        tall, window = {"width": WIDTH, "height": 6000}, {"width": WIDTH, "height": 900}
        page = browser.new_page(viewport=tall, color_scheme="light", device_scale_factor=1)
        page.goto((run / "evaluation" / "report.html").resolve().as_uri())
        box = page.locator("#realism").bounding_box()
        box = {**box, "x": 0, "width": WIDTH, "height": min(560, box["height"])}
        save(page.screenshot(clip=box), "evaluate_realism.png", 128)
        page.set_viewport_size(window)
        page.locator("#maps").evaluate("element => element.scrollIntoView()")
        save(page.screenshot(), "evaluate_maps.png", 128)
        browser.close()


# -- turing ----------------------------------------------------------------------------------------

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}


def turing(work: Path, args: argparse.Namespace) -> None:
    """Make phantoms, fit, write pages, look at them in windows of several sizes."""
    from playwright.sync_api import sync_playwright

    from gansynth.testing.phantoms import PhantomOptions, write_phantoms

    for name, spacing in (("fine", 3.0), ("coarse", 5.0)):
        if not (work / name).exists():
            write_phantoms("brats", work / name, 24, options=PhantomOptions(spacing_mm=spacing))
    fits = {
        "dcgan": (f"slices:nifti:{work / 'fine'}", (*SLICES, "channels=flair"), "steps=1200", WGAN),
        "cgan3d": (
            f"nifti:{work / 'coarse'}",
            ("channels=T1,FLAIR",),
            "steps=300",
            ("batch_size=1", "width=12", "levels=3", "d_width=12"),
        ),
    }
    for name, (data, read, steps, settings) in fits.items():
        words = [f"--read={text}" for text in read]
        words += [f"--set={text}" for text in (steps, *settings)]
        gansynth("fit", name, "--data", data, *words, "-o", str(work / name))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        read_study(browser, work / "dcgan", {"desktop": "slices", "phone": "phone"})
        read_study(browser, work / "cgan3d", {"desktop": "volumes"})


def read_study(browser: Any, run: Path, names: dict[str, str]) -> None:
    """Make a study of a run; the first image, as raters see it."""
    from gansynth_evaluate.turing import TuringOptions, make_study

    shutil.rmtree(run / "study", ignore_errors=True)
    _, (path,) = make_study(run, run / "study", TuringOptions(n=8, origin="all"))
    for size, name in names.items():
        page = browser.new_context(**SIZES[size], color_scheme="dark").new_page()
        page.goto(path.absolute().as_uri())
        page.fill("#name", f"reader on a {size}")
        page.click("text=Begin")
        page.wait_for_selector("#real[aria-disabled=false]")
        page.mouse.click(5, 5)  # a ring around the image says where the keys go
        save(page.screenshot(), f"turing_{name}.png", 192)
        page.context.close()


# -- froc ------------------------------------------------------------------------------------------

PATIENTS, SCANNED, SIDE = 36, 26, 256
FALSE = 14.0
"""Mean false boxes of a slice, most of them of low score."""
ARMS = {"A": -1.0, "B": 0.5}
"""What is added to the log-odds of an arm's scores.

B is A with higher scores for everything, be it true or false: at one confidence it finds more, as
in the paper's table, at equal false positives it does not.
"""
Lesions = list[tuple[npt.NDArray[np.float64], float]]
"""Of one slice: boxes, and how plain to see their lesion is."""


def froc(work: Path, args: argparse.Namespace) -> None:
    """Simulate two arms, measure them as ``gansynth detections`` does, draw."""
    from gansynth.metrics.detection.measures import measure_arms
    from gansynth.metrics.detection.record import FILE, read_arms, write_detections
    from gansynth_evaluate.detections import draw_froc, markdown

    for seed, (name, bias) in enumerate(ARMS.items(), 1):
        write_detections(work / name / FILE, simulated(bias, seed))
    document = measure_arms(read_arms([str(work / name) for name in ARMS]))
    (work / "table.md").write_text(markdown(document), "utf-8")
    title = f"Simulated detections: {PATIENTS} made-up patients, {PATIENTS * SCANNED} slices"
    draw_froc(document, IMAGES / "froc.png", title=title)


def simulated(bias: float, seed: int) -> Any:
    """Detections of an arm; all arms have the same truth."""
    from gansynth.metrics.detection.record import Detections, ImageDetections, TrueBoxes

    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    images = []
    for patient in range(PATIENTS):
        for z, here in enumerate(patient_of(truth)):
            boxes = np.array([box for box, _ in here]).reshape(-1, 4)
            true = TrueBoxes(boxes, np.zeros(len(boxes), np.int64))
            found = found_by(bias, here, rng)
            name, who = f"p{patient:02}_{z:02}", f"p{patient:02}"
            images.append(ImageDetections(name, who, (SIDE, SIDE), true, found, who, z))
    about = {"note": "simulated, no detector"}
    return Detections("simulated", ("lesion",), tuple(images), 0.5, "test", 1e-4, about=about)


def patient_of(rng: np.random.Generator) -> list[Lesions]:
    """The slices of one patient."""
    slices: list[Lesions] = [[] for _ in range(SCANNED)]
    for _ in range(1 + rng.poisson(3)):
        centre, radius = rng.uniform(60, SIDE - 60, 2), rng.lognormal(2.2, 0.5)
        middle, plain = rng.integers(0, SCANNED), rng.normal(0.6 * np.log(radius / 8), 1)
        for z in range(SCANNED):
            half = radius**2 - (4 * (z - middle)) ** 2
            if half > 4:
                side = np.sqrt(half)
                slices[z].append((np.concatenate([centre - side, centre + side]), plain))
    return slices


def found_by(bias: float, here: Lesions, rng: np.random.Generator) -> Any:
    """What an arm finds in one slice."""
    from gansynth.metrics.detection.record import DetectedBoxes

    boxes, odds = [], []
    for box, plain in here:
        shift = rng.normal(0, 0.13, 4) * (box[2] - box[0])
        boxes.append(box + shift)
        odds.append(bias + 2.0 * plain - 2.5 + rng.normal(0, 1.5))
    for _ in range(rng.poisson(FALSE)):
        low = rng.uniform(20, SIDE - 50, 2)
        boxes.append(np.concatenate([low, low + rng.uniform(8, 30, 2)]))
        odds.append(bias - 6.5 + rng.normal(0, 2))
    scores = 1 / (1 + np.exp(-np.array(odds)))
    kept = scores >= 1e-4
    kind = np.zeros(int(kept.sum()), np.int64)
    return DetectedBoxes(np.array(boxes).reshape(-1, 4)[kept], scores[kept], kind)


# -- lesions ---------------------------------------------------------------------------------------

STAGES = ("copypaste", "coarse", "refine", "both")
SHOWN, LOOKED_AT = 3, 12
"""Rows, and conditions that are looked at for them: those with the largest new lesions."""
EDGE, GAP = 150, 6
"""Pixels of a panel, about, and white ones between panels."""
AROUND = 14
"""Voxels shown on each side of the middle of a lesion."""


def lesions(folder: Path, args: argparse.Namespace) -> None:
    """One condition a row: the background, what each stage makes of it, the lesion's outlines."""
    from gansynth.report.png import png_bytes
    from gansynth.runtime.files import write_bytes_atomic

    found = {stage: drawn(folder / f"run-phantoms-{stage}-0") for stage in STAGES}
    conditions = found["copypaste"][0]
    sizes = [0 if c.lesion is None else int((c.lesion > 0).sum()) for c in conditions]
    rows = []
    for number in np.argsort(sizes)[::-1][:SHOWN].tolist():
        condition = conditions[number]
        for stage in STAGES:  # what is compared was asked for alike
            assert np.array_equal(found[stage][0][number].lesion, condition.lesion)
        images = [condition.background, *(found[stage][1][number].image for stage in STAGES)]
        panels = [panel(image, condition, lines=False) for image in images]
        rows.append(joined([*panels, panel(images[-1], condition, lines=True)], axis=1))
    write_bytes_atomic(IMAGES / "lesions.png", png_bytes(joined(rows, axis=0)))


def drawn(folder: Path) -> tuple[list[Any], list[Any]]:
    """The conditions of a run and what it makes of them."""
    from bench_lesion import EDITS, LESIONS

    from gansynth.core.sample_request import SampleRequest
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sampler import Sampler

    run = load_run(folder, "cpu")
    source = open_source(run.request)
    sampler = Sampler(
        run, source, SampleRequest(edits=EDITS, seed=0, keep_flawed=True, lesions=LESIONS)
    )
    conditions = [sampler.sampler.draw(number) for number in range(LOOKED_AT)]
    return conditions, sampler.draw_raw(0, LOOKED_AT)


def panel(image: Any, condition: Any, *, lines: bool) -> Picture:
    """One channel in the slice and the square where the new lesion is largest."""
    from gansynth.report.png import outlined, scaled

    plane = int((condition.lesion > 0).sum(axis=(1, 2)).argmax())
    sides = []
    for axis, length in zip(
        np.nonzero(condition.lesion[plane]), condition.lesion.shape[1:], strict=True
    ):
        start = int(np.clip(int(axis.mean()) - AROUND, 0, length - 2 * AROUND))
        sides.append(slice(start, start + 2 * AROUND))
    # The background's own lesions, as bright as the new one, have been taken out of it.
    low, high = np.percentile([condition.background[-1], condition.donor[-1]], (1, 99.8))
    grey = scaled(image[-1][plane][*sides][None], [(float(low), float(high))], 8)[0][0]
    labels = condition.lesion[plane][*sides] if lines else np.zeros(grey.shape, np.int16)
    return np.asarray(outlined(grey, labels, (1, 2, 3), edge=EDGE), np.uint8)


def joined(pictures: list[Picture], axis: int) -> Picture:
    """Pictures side by side, or one below the other, with white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, np.uint8)
    parts = [part for one in pictures for part in (one, white)][:-1]
    return np.asarray(np.concatenate(parts, axis=axis), np.uint8)


DRAWN = {one.__name__: one for one in (dcgan, evaluate, froc, lesions, turing)}


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=DRAWN)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    DRAWN[args.what](args.folder, args)


if __name__ == "__main__":
    main()
