"""``gansynth demo``: every step on phantoms."""

from __future__ import annotations

from pathlib import Path

import click

from gansynth_cli.common import FOLDER, Output, examples, say_device, seed_option, with_output
from gansynth_cli.help import with_needs
from gansynth_cli.results import lines_of_demo, lines_of_phantoms


@click.command(
    epilog=examples("gansynth demo -o runs/demo", "gansynth demo -o phantoms --phantoms yolo")
)
@with_needs({"channels": "phantoms=deepmedic"})
@click.option(
    "-o", "--out", "folder", required=True, type=FOLDER, help="New folder for all results."
)
@seed_option("Seeds phantoms, weights and samples.")
@click.option(
    "--long",
    is_flag=True,
    help="Volumes of four channels, which takes longer; with --phantoms more and finer ones.",
)
@click.option(
    "--phantoms",
    type=click.Choice(["nnunet", "deepmedic", "brats", "tissues", "livers", "yolo"]),
    help="Write phantoms and stop. nnunet, deepmedic, brats: gliomas as a raw data set of nnU-Net, "
    "as lists and configurations of DeepMedic, or as BraTS folders. tissues: healthy brains with "
    "their tissues. livers: CT with lesions. yolo: slices of gliomas with boxes.",
)
@click.option(
    "--channels",
    metavar="NAMES",
    help="Sequences of --phantoms deepmedic, of T1,T1c,T2,FLAIR. [default: FLAIR,T1c]",
)
@click.option("--force", is_flag=True, help="Replace an earlier demo in this folder.")
@with_output
def command(
    folder: Path,
    seed: int,
    long: bool,
    phantoms: str | None,
    channels: str | None,
    force: bool,
    out: Output,
) -> None:
    """Run every step on phantoms: no data and no GPU needed.

    Simulates brains with a glioma, and fits a generator on one fold of their slices. Trains an
    unmodified nnU-Net with samples mixed in on the fly, and as long without. Writes pictures and
    a summary, in about a minute and a half. Results on phantoms prove nothing about patients.
    """
    from gansynth.testing.demonstration import LONG, SHORT, run_demo, write_phantoms

    named = [] if channels is None else [name.strip() for name in channels.split(",")]
    if phantoms is not None:
        written = write_phantoms(
            folder,
            phantoms,
            long=long,
            seed=seed,
            force=force,
            channels=named,
            reporter=out.reporter,
        )
        out.result(written, lines_of_phantoms(written))
        return
    say_device("auto", out)
    size = LONG if long else SHORT
    document = run_demo(folder, size=size, seed=seed, force=force, reporter=out.reporter)
    out.result(document, lines_of_demo(document, folder))
