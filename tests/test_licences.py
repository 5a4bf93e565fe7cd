"""Core dependencies, and what they install, are under licences that ask nothing of gansynth."""

import re
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
STRICT = re.compile(
    r"(?<!L)(?<!lesser )\b(A?GPL|affero|GNU general public)|non-?commercial|\bNC\b", re.I
)


def licence(found: PackageMetadata) -> str:
    """What a package's metadata say: expression, classifiers, or the text's first line."""
    classes = [c for c in found.get_all("Classifier", []) if c.startswith("License ::")]
    texts = found.get_all("License-Expression", []) or found.get_all("License", [])
    text = "".join(texts).strip()
    return "; ".join([*classes, text.partition("\n")[0]]).strip("; ")


def installed() -> dict[str, str]:
    """Licence of each package that the core needs, through all of its packages."""
    wanted = [Requirement(r) for r in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]]
    found: dict[str, str] = {}
    while wanted:
        one = wanted.pop()
        if one.name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            metadata = distribution(one.name).metadata
        except PackageNotFoundError:  # for another platform
            continue
        found[one.name] = licence(metadata)
        wanted += map(Requirement, metadata.get_all("Requires-Dist", []))
    return found


def test_no_core_dependency_is_under_the_gpl_or_for_research_only():
    licences = installed()
    assert {"torch", "numpy", "nnunetv2"} <= set(licences)
    assert {name: words for name, words in licences.items() if STRICT.search(words)} == {}


def test_a_strict_licence_is_seen():
    assert STRICT.search("License :: OSI Approved :: GNU Affero General Public License v3")
    assert STRICT.search("GPL-3.0-only")
    assert STRICT.search("CC-BY-NC-4.0")
    assert not STRICT.search("LGPL-2.1; BSD; GNU Lesser General Public License v3 (LGPLv3)")
