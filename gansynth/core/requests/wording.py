"""How errors and ``help`` speak to who writes Python: names of arguments, and calls.

Messages are written for the terminal. Every function of Python's passes its errors through
``speaking_python``, so that there is one place which decides what an argument is called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from textwrap import fill, wrap
from types import NoneType
from typing import Any

from gansynth.runtime.errors import GansynthError, did_you_mean
from gansynth.runtime.option_kinds import alternatives

NO_SETTING = "options.setting-unknown"
"""Id of the error of a key that a generator or host does not have."""
WIDTH = 76
"""Columns of a help text: a terminal's 80 without the indentation."""
_WORD = r"(?:\.\.\.|[^\s'();]*'[^']*'|[^\s'();]+?)(?=[;,.:)]*(?:\s|$))"
_COMMAND = re.compile(rf"(?<!['\w])gansynth ([a-z]+(?:-[a-z]+)*)((?: {_WORD})*)")
_OF_SHELL = re.compile(r"\b([Ss]ee): (?=gansynth (?:help|plugins)\b)")  # have no function
_FLAG = re.compile(r"(?<!-- )(?:--set (?=[a-z]\w*=)|--[a-z][a-z-]*|(?<![\w-])-[a-z](?![\w-]))")


@contextmanager
def speaking_python(
    names: Mapping[str, str], prefix: str = "", *, fields: Iterable[str] = ()
) -> Iterator[None]:
    """Let errors name arguments instead of the flags of a command line, and calls as way out.

    Args:
        names: flag -> argument; what is typed without a flag by its placeholder.
        prefix: the section of a YAML file, ``arms.2: ``, whose user types commands.
        fields: arguments of which an unknown setting may be one, misspelt.
    """
    try:
        yield
    except GansynthError as error:
        said = str(error)
        if error.id == NO_SETTING:  # an argument of its own
            said = said.removeprefix("--set ")
        text = words_of_python(names, said, calls=not prefix)
        setting = re.match(r"(\w+)[=:]", text) if error.id == NO_SETTING else None
        if setting:  # may be an argument, misspelt
            none, meant = "has no such setting.", re.findall(r" Did you mean '(\w+)'\?", text)
            hint = did_you_mean(setting[1], [*meant, *fields])
            text = re.sub(rf"{re.escape(none)}( Did you mean '\w+'\?)?", none + hint, text, count=1)
        error.args = (" ".join(f"{prefix}{text}".split()), *error.args[1:])
        raise


def words_of_python(names: Mapping[str, str], text: str, *, calls: bool = False) -> str:
    """Return a text with the names of arguments in place of flags.

    Args:
        calls: whether commands in it become calls; else they stay as typed.
    """
    for typed, name in names.items():
        if not typed.startswith("-") and text.startswith(typed):
            text = text.replace(typed, name, 1)
    parts, end = [], 0
    for found in _COMMAND.finditer(text):
        parts += [
            _named(names, text[end : found.start()]),
            _call(names, found) if calls else found[0],
        ]
        end = found.end()
    said = "".join([*parts, _named(names, text[end:])])
    return _OF_SHELL.sub(r"\1 in a shell: ", said) if calls else said


def _named(names: Mapping[str, str], text: str) -> str:
    return _FLAG.sub(lambda f: "" if f[0] == "--set " else names.get(f[0], f[0]), text)


def _call(names: Mapping[str, str], found: re.Match[str]) -> str:
    """Return the call of Python in place of a command, or its name in a sentence about it."""
    face: Any = import_module("gansynth")
    name = {"import": "import_data"}.get(found[1], found[1].replace("-", "_"))
    function = getattr(face, name, None) if name in face.COMMANDS else None
    words = re.findall(_WORD, found[2])
    if found[1] == "options" and words:
        return " ".join([f"gansynth.options({_text(words[0])})", *words[1:]])
    if function is None or not hasattr(function, "request"):
        return found[0]
    cls = function.request
    flags, named, place = cls.names(), dict[str, list[str]](), 0
    unnamed = cls.positional()
    while place < len(words):
        word, following = words[place], words[place + 1 : place + 2]
        flag, equals, value = word.partition("=")
        field, off, _ = flags.get(flag, "").partition("=")
        if word.startswith("-") and not field:
            return found[0]
        if word.startswith("-") and cls.is_switch(field):
            named[field] = ["False" if off else "True"]
        elif word.startswith("-"):
            if not equals and not following:
                break
            text = _value(cls, field, value if equals else following[0])
            named.setdefault(field, []).append(text)
            place += not equals
        elif unnamed and _is_value(word, following):
            named[unnamed.pop(0)] = [_text(word)]
        else:
            break
        place += 1
    if not named:
        return f"gansynth.{name}{_named(names, found[2])}"
    values = {key: v[0] if len(v) == 1 else f"[{', '.join(v)}]" for key, v in named.items()}
    shown = [values.pop(field) for field in cls.positional() if field in values]
    shown += [f"{field}={value}" for field, value in values.items()]
    return " ".join([f"gansynth.{name}({', '.join(shown)})", *words[place:]])


def _is_value(word: str, following: list[str]) -> bool:
    """Whether a word is what a command takes, and not the next one of the sentence."""
    return re.search("[^a-z]", word) is not None or bool(following and following[0][0] == "-")


def _value(cls: Any, field: str, word: str) -> str:
    kinds = {*alternatives(cls.model_fields[field].annotation)} - {NoneType}
    if kinds <= {int, float} and re.fullmatch(r"-?[\d.]+", word):
        return word
    if kinds == {bool}:
        return str(word == "yes")
    return _text(word)


def _text(word: str) -> str:
    return word if word == "..." else json.dumps(word.replace("'", ""), ensure_ascii=False)


# -- help ------------------------------------------------------------------------------------------


def meanings_of(text: str) -> dict[str, str]:
    """Return argument -> its line in the ``Args:`` of a docstring."""
    (_, found, _), meanings = parts_of(text), dict[str, str]()
    for names, meaning in re.findall(r"^    (\w[\w, ]*): (.+(?:\n {5,}.+)*)", found, re.MULTILINE):
        meanings |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return meanings


def parts_of(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the ``Args:`` of a docstring."""
    before, *rest = re.split(
        r"^(?=(?:Attributes|Returns|Yields|Raises):)", text, maxsplit=1, flags=re.M
    )
    before, _, args = before.partition("\nArgs:\n")
    return before.rstrip(), args, rest[0].rstrip() if rest else ""


def help_text(before: str, meanings: Mapping[str, str], after: str) -> str:
    """Return a docstring of 80 columns with a line for each argument."""
    lines = []
    for paragraph in before.split("\n\n"):
        plain = "\n " not in paragraph
        lines += [fill(" ".join(paragraph.split()), WIDTH) if plain else paragraph, ""]
    lines.append("Args:")
    for name, meaning in meanings.items():
        first, further = " " * 4, " " * 8
        text = f"{name}: {meaning}"
        lines += wrap(text, WIDTH, initial_indent=first, subsequent_indent=further)
    return "\n".join([*lines, "", after] if after else lines)
