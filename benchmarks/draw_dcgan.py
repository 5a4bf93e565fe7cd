"""The pictures of ``dcgan`` in the docs: phantoms, a fit of some minutes, its sheets.

    python benchmarks/draw_dcgan.py WORK [KEY=VALUE ...]

Phantoms, not patients. ``WORK`` keeps them and the run; a second call goes on from there.
"""

import subprocess
import sys
from pathlib import Path

from gansynth.phantoms import PhantomOptions, write_nnunet_raw

READ = ("slices=30%-75%", "foreground=with", "channels=FLAIR", "window=1%:99.8%", "resize=64x64")
SETTINGS = {
    "objective": "wgan-gp",
    "width": "32",
    "max_width": "256",
    "batch_size": "32",
    "steps": "3000",
    "n_critic": "2",
    "lr_generator": "4e-4",
    "lr_discriminator": "4e-4",
}


def main(work: Path, changes: list[str]) -> None:
    """Make phantoms, fit, draw."""
    raw = work / "nnUNet_raw"
    data = raw / "Dataset999_Phantom"
    if not (data / "dataset.json").exists():
        write_nnunet_raw(raw, 40, options=PhantomOptions(spacing_mm=3.0))
    gansynth, run = [str(Path(sys.executable).with_name("gansynth"))], str(work / "run")
    read = [f"--read={text}" for text in READ]
    chosen = {**SETTINGS, **dict(text.split("=", 1) for text in changes)}
    settings = [f"--set={key}={value}" for key, value in chosen.items()]
    source = ["--data", f"slices:nnunet-raw:{data.name}", f"--root={work}", *read]
    subprocess.run(
        [*gansynth, "fit", "dcgan", "--with-mask", *source, *settings, "-o", run], check=True
    )
    sheets = ["-n", "24", "--sheet", "--interpolate", "8", "--nearest", "--seed", "1"]
    subprocess.run([*gansynth, "sample", run, *sheets], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
