"""One job: a function with a content address and dependencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from gansynth.runtime.serialise import Document


@dataclass(frozen=True)
class JobSpec(Document):
    """A function and its argument, addressed by their content."""

    key: str  # content address, hexadecimal digits. Two jobs with one key are one job.
    title: str  # readable name: `cgan, N=6, draw 1, seed 0`
    group: str  # row of the progress table: `fit`, `train`
    # `MODULE:FUNCTION`, called with `document` and the job's folder, which is published whole; it
    # returns a JSON document. It resumes from files that an earlier attempt left in the folder.
    function: str
    _: KW_ONLY
    document: Mapping[str, Any] = field(default_factory=dict, hash=False)
    needs: tuple[str, ...] = ()
    # environment variables of the job, over those of the calling process
    env: Mapping[str, str] = field(default_factory=dict, hash=False)

    def run(self, folder: Path) -> Any:
        """Run the job in this process, and return its document."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)(self.document, folder)
