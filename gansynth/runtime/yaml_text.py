"""YAML of users: settings and files, read within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gansynth.runtime.errors import DataFault, GansynthError, UsageFault

MAX_YAML_BYTES = 1 << 20  # size limit of a user's YAML file
MAX_VALUES = 10**5  # most values of a text, those that aliases (`*name`) repeat included
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if not alias:
            pairs = isinstance(node, yaml.MappingNode)
            inside = [n for pair in node.value for n in pair] if pairs else node.value
            node.values = 1 + sum(0 if isinstance(n, str) else n.values for n in inside)
        if getattr(node, "values", MAX_VALUES + 1) > MAX_VALUES:  # unknown: inside itself
            raise yaml.YAMLError(f"its aliases (*name) unfold to more than {MAX_VALUES} values")
        return node


_Loader.yaml_constructors = {  # values that JSON has too: no sets, dates or bytes
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KINDS
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in rules if not tag.endswith(":timestamp")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return what a YAML text says; its aliases unfold within a bound, and dates stay texts.

    Raises:
        yaml.YAMLError: not such a text.
    """
    try:
        return yaml.load(text, _Loader)
    except (*_UNFIT, RecursionError) as error:  # such as a number of 5,000 digits, or !!bool x
        raise yaml.YAMLError(f"{type(error).__name__}: {str(error)[:200]}") from None


def read_yaml(
    path: Path, expected: str, fault: type[GansynthError] = UsageFault
) -> tuple[Any, bytes]:
    """Read a user's YAML file; return its document and its bytes.

    Args:
        path: the file.
        expected: description for messages: ``a recipe in YAML``.
        fault: raised for a file that is too large, or not YAML.
    """
    from gansynth.runtime.files import reading  # imports numpy, which --help does not need

    if not path.is_file():
        raise DataFault("yaml.no-file", f"{path}: no such file, expected {expected}")
    with reading(path):
        if path.stat().st_size > MAX_YAML_BYTES:
            raise fault(
                "yaml.too-large", f"{path}: larger than {MAX_YAML_BYTES} bytes, expected {expected}"
            )
        data = path.read_bytes()
    try:
        return parse_yaml(data.decode("utf-8-sig")), data
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())[:300]
        raise fault("yaml.not-yaml", f"{path}: not YAML ({text}); expected {expected}") from None
