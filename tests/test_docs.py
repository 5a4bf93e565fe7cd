"""The tables of settings in docs/training.md are those of the code.

``python tests/test_docs.py`` rewrites them.
"""

from pathlib import Path

import pytest
from pydantic import BaseModel

from gansynth.training import FitOptions
from gansynth_cgan3d.model import CGANOptions

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
TABLES: dict[str, type[BaseModel]] = {"loop": FitOptions, "cgan3d": CGANOptions}


def rows(model: type[BaseModel]) -> str:
    """A table with a line for each setting."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = "" if field.default in (None, ()) else field.default
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """The page with its tables as they ought to be."""
    for name, model in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        tail = rest[rest.index(end) :]
        text = f"{head}{begin}{rows(model)}\n{tail}"
    return text


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_settings_of_the_code(name):
    text = PAGE.read_text(encoding="utf-8")
    assert rows(TABLES[name]) in text, "run: python tests/test_docs.py"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
