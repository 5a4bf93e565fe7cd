"""How much room a sample takes in a detector's bank."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

BOXES = 4096
"""Bytes for the boxes of a sample and what it says of itself."""


def sample_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes one sample of a run takes: its image in two bytes a value, and its boxes."""
    values = prod(map(int, manifest["space"]["size"])) * len(manifest["schema"]["channels"])
    return 2 * values + BOXES
