"""``gansynth cache``: copy the cases of any source into one HDF5 file that is fast to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth_cli.common import (
    Output,
    dry_run_option,
    examples,
    summary,
    then,
    with_output,
    with_source_argument,
)
from gansynth_cli.results import generator_for

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest


@click.command(
    epilog=examples(
        "gansynth cache nnunet:004 -c 3d_fullres --fold 0 -o hippocampus_f0.h5",
        "gansynth cache nifti:cases.csv --read spacing=1 --dtype float16 -o cases.h5 --dry-run",
    )
)
@with_source_argument
@click.option(
    "-o",
    "--out",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The new file.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How images are stored; float16 halves the file and keeps three digits.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "lzf", "gzip"]),
    default="none",
    show_default=True,
    help="Compression of the file; none reads fastest.",
)
@click.option(
    "--chunk",
    type=click.IntRange(8, 256),
    default=24,
    show_default=True,
    help="Longest edge of a chunk, in voxels.",
)
@dry_run_option
@with_output
def command(
    request: SourceRequest,
    path: Path,
    dtype: Any,
    compression: Any,
    chunk: int,
    dry_run: bool,
    out: Output,
) -> None:
    """Copy the cases of any source into one HDF5 file that is fast to read.

    Use it as --data h5:FILE, with the same --fold. Guards against leakage treat the copy as the
    original: same cases, subjects, fold and space.
    """
    from gansynth.data.h5 import estimate, refuse_existing, write_h5
    from gansynth.runtime.progress import counting
    from gansynth.sampling.run_source import open_source

    refuse_existing(path)
    source = open_source(request)
    if dry_run:
        report = estimate(source, path, dtype=dtype, chunk=chunk)
    else:
        with counting(out.reporter, "cache") as progress:
            report = write_h5(
                source, path, dtype=dtype, compression=compression, chunk=chunk, progress=progress
            )
    words = (
        "fit",
        generator_for(source.schema),
        "--data",
        f"h5:{path}",
        "--fold",
        source.request.fold,
    )
    fitted = then(*words, "-o", "runs/g0")
    out.result(report, [*summary(report), *([] if dry_run else [fitted])])
