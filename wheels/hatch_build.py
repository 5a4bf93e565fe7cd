"""Build one distribution of a release out of the repository's one tree, by hatchling's hooks.

Which packages it holds is said in ``gansynth/runtime/parts.toml``; which files a package has, and
all that distributions share, in the ``pyproject.toml`` of the root. The one beside this
distribution's name says what it needs: names, whose bounds the root has.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[1]
SHARED = ("authors", "classifiers", "keywords", "license", "requires-python")


def toml(*path: str) -> dict[str, Any]:
    """Return a file of the repository."""
    return tomllib.loads(ROOT.joinpath(*path).read_text(encoding="utf-8"))


def packages_of(distribution: str) -> list[str]:
    """Return the packages of a distribution (``gansynth_nnunet``)."""
    return list(toml("gansynth", "runtime", "parts.toml")[distribution]["packages"])


def name_of(requirement: str) -> str:
    """Return the name in a requirement."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


class Metadata(MetadataHookInterface):
    """What the distribution shares with the root, and what it needs."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the fields that its ``pyproject.toml`` calls dynamic."""
        root = toml("pyproject.toml")["project"]
        name = metadata["name"]
        version = WheelBuilder(str(ROOT)).metadata.version
        bounds = {name_of(needed): needed for needed in root["dependencies"]}
        extras = root["optional-dependencies"]
        packages = packages_of(name)
        points = {
            group: {n: of for n, of in table.items() if re.split("[.:]", of)[0] in packages}
            for group, table in [*root["entry-points"].items(), ("scripts", root["scripts"])]
        }
        metadata |= {field: root[field] for field in SHARED if field in root}
        metadata["version"] = version
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": (ROOT / root["readme"]).read_text(encoding="utf-8"),
        }
        metadata["dependencies"] = [f"{part}=={version}" for part in self.config["parts"]]
        metadata["dependencies"] += [bounds[needed] for needed in self.config["needs"]]
        metadata["optional-dependencies"] = {
            extra: extras[extra] for extra in self.config["extras"]
        }
        metadata["scripts"] = points.pop("scripts")
        metadata["entry-points"] = {group: table for group, table in points.items() if table}


class Files(BuildHookInterface):
    """The files of the distribution's packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Take them from the tree, as the root's wheel has them."""
        packages = packages_of(self.metadata.name)
        for file in WheelBuilder(str(ROOT)).recurse_included_files():
            package = file.distribution_path.replace("\\", "/").partition("/")[0]
            if package in packages:
                build_data["force_include"][file.path] = file.distribution_path
