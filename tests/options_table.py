"""The keys of a kind of source as the docs list them."""

from __future__ import annotations

from gansynth.data.reading import ReadOptions


def options_table(model: type[ReadOptions]) -> list[str]:
    """Lines of the docs' Markdown table of a kind's keys: key, default, meaning."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, field in model.model_fields.items():
        default = "" if field.default is None else _typed(field.default)
        lines.append(f"| `{key}` | {default} | {field.description} |")
    return lines


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    return f"`{','.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"
