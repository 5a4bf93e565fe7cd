"""The pictures of ``gansynth turing-test`` in the docs: phantoms, two short fits, a browser.

    python benchmarks/draw_turing.py WORK [CHROMIUM]

Phantoms, not patients. ``WORK`` keeps them and the runs; a second call goes on from there.
Pictures go into ``docs/images``.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from queue import Queue

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from gansynth.phantoms import PhantomOptions, write_gliomas
from gansynth.turing import TuringOptions, open_session, prepare_session, serve

IMAGES = Path(__file__).parents[1] / "docs" / "images"
GANSYNTH = str(Path(sys.executable).with_name("gansynth"))
FLAT = (
    *("--read=slices=30%-75%", "--read=foreground=with", "--read=channels=flair"),
    *("--read=window=1%:99.8%", "--read=resize=64x64"),
)
FLAT_SETTINGS = (
    *("objective=wgan-gp", "width=32", "max_width=256", "batch_size=32", "steps=1200"),
    *("n_critic=2", "lr_generator=4e-4", "lr_discriminator=4e-4"),
)
DEEP = ("--read=channels=T1,FLAIR",)
DEEP_SETTINGS = ("steps=300", "batch_size=1", "width=12", "levels=3", "d_width=12")
SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}


def fit(work: Path, generator: str, data: str, read: tuple[str, ...], settings: tuple[str, ...]):
    """Fit on phantoms, or go on with it."""
    run = work / generator
    chosen = [f"--set={text}" for text in settings]
    source = ["--data", data, *read, "-o", str(run)]
    subprocess.run([GANSYNTH, "fit", generator, *source, *chosen], check=True)
    return run


def shown(browser, link: str, size: str) -> Page:
    """The first image, as a rater sees it."""
    page = browser.new_context(**SIZES[size]).new_page()
    page.goto(link)
    page.fill("#name", f"reader on a {size}")
    page.click("text=Begin")
    page.wait_for_selector("#real[aria-disabled=false]")
    return page


def save(page: Page, name: str) -> None:
    """A picture of a window, with few colours."""
    with tempfile.TemporaryDirectory() as folder:
        page.screenshot(path=f"{folder}/shot.png")
        picture = Image.open(f"{folder}/shot.png").convert("RGB").quantize(192)
        picture.save(IMAGES / f"turing_{name}.png", optimize=True)


def draw(browser, run: Path, names: dict[str, str]) -> None:
    """Serve a session of a run, and look at it in windows of several sizes."""
    shutil.rmtree(run / "session", ignore_errors=True)
    prepare_session(run, run / "session", TuringOptions(n=8, origin="all", show_results=True))
    links: Queue = Queue()
    serving = threading.Thread(
        target=serve,
        args=(open_session(run / "session"),),
        kwargs={"ready": lambda link, stop: links.put((link, stop))},
    )
    serving.start()
    link, stop = links.get(timeout=60)
    try:
        for size, name in names.items():
            page = shown(browser, link, size)
            page.mouse.click(5, 5)  # a ring around the image says where the keys go
            save(page, name)
            page.context.close()
    finally:
        stop()
        serving.join()


def main(work: Path, chromium: str) -> None:
    """Make phantoms, fit, prepare, draw."""
    for name, spacing in (("fine", 3.0), ("coarse", 5.0)):
        if not (work / name).exists():
            write_gliomas(work / name, 24, options=PhantomOptions(spacing_mm=spacing))
    flat = fit(work, "dcgan", f"slices:nifti:{work / 'fine'}", FLAT, FLAT_SETTINGS)
    deep = fit(work, "cgan3d", f"nifti:{work / 'coarse'}", DEEP, DEEP_SETTINGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        draw(browser, flat, {"desktop": "slices", "phone": "phone"})
        draw(browser, deep, {"desktop": "volumes"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium")
