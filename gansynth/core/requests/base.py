"""One class says what a command takes.

Its fields are the arguments of the Python function, the options of the command, the keys of a YAML
section and the words that are recorded. A field holds what a user types; properties parse it. Its
docstring is the option's help.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from operator import or_
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Concatenate,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError
from pydantic.fields import FieldInfo

from gansynth.core.requests.wording import help_text, parts_of, speaking_python, words_of_python
from gansynth.runtime.errors import UsageFault, brief, did_you_mean
from gansynth.runtime.measuring import dry_run
from gansynth.runtime.option_kinds import alternatives
from gansynth.runtime.options import FlagText, flag_of, idle, message_of
from gansynth.runtime.serialise import to_json

if TYPE_CHECKING:
    from gansynth.runtime.progress import Reporter

P = ParamSpec("P")
Q = TypeVar("Q")
R = TypeVar("R")
S = TypeVar("S")
EMPTY: tuple[Any, ...] = (None, (), {}, "")
TYPED = (str, bool, Real, os.PathLike, NoneType)
"""What a setting's value, or one of several, may be in Python."""


@dataclass(frozen=True, kw_only=True)
class Opt:
    """How a field is typed; its name, type, default and help are the field's.

    Attributes:
        flags: in place of ``--NAME``; the last long one names it in messages.
        metavar: what stands for the value in the help.
        needs: the condition under which it has an effect, see ``gansynth.runtime.options.Needs``.
        names: kinds of plugins whose names complete it.
        keys: whether it is ``KEY=VALUE`` of a generator or host, which completes.
        example: of a ``KEY=VALUE`` text.
        alone: the value of the flag without one.
        argument: typed without a flag.
        eager: read before the others.
        shown: whether the help shows the default.
        heading: in the help, in place of the part's.
        word: whether a switch is typed ``yes`` or ``no``.
        called: its flag in messages.
        hidden: not typed at all.
    """

    flags: tuple[str, ...] = ()
    metavar: str | None = None
    needs: str = ""
    names: tuple[str, ...] = ()
    keys: bool = False
    example: str = ""
    alone: str | None = None
    argument: bool = False
    eager: bool = False
    shown: bool = True
    heading: str = ""
    word: bool = False
    called: str = ""
    hidden: bool = False


def as_tuple(value: Any) -> Any:
    """Return the values of a repeatable option; a text or a number alone is one of them."""
    if value is None:
        return ()
    if isinstance(value, str | os.PathLike | Real):
        return (value,)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError("expected a text, or a list of texts")
    return tuple(value)


def as_texts(values: Mapping[str, Any] | str | Iterable[str] | None) -> dict[str, str]:
    """Return settings as typed after ``--set``: ``yes``, ``none``, ``64,64``, ``0.5``.

    ``values`` may be what is typed itself, ``KEY=VALUE`` or a list of such.

    Raises:
        ValueError: a key twice, or what is no key with its value.
    """
    if isinstance(values, Mapping):
        pairs = [*values.items()]
    else:
        pairs = [_pair(text) for text in as_tuple(values)]
    texts: dict[str, str] = {}
    for key, value in pairs:
        many = value if isinstance(value, list | tuple) else (value,)
        if not isinstance(key, str) or not all(isinstance(v, TYPED) for v in many):
            raise ValueError(f"{key!r}: {value!r}: expected keys and values, as width: 4")
        if key in texts:
            raise ValueError(f"{key!r} is given twice")
        texts[key] = text_of(value)
    return texts


def _pair(text: object) -> tuple[str, str]:
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals or not key.strip():
        raise ValueError(f"{text!r}: expected KEY=VALUE")
    return key.strip(), value  # a suffix of files' names may begin with a blank


def paths_of(values: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Return the paths of a field that takes several."""
    return tuple(map(Path, as_tuple(values)))


def text_of(value: Any) -> str:
    """Return a value as the text that a user types for it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(text_of, value))
    if value is None:
        return "none"
    return value if isinstance(value, str) else str(value)


def absolute(folder: str | os.PathLike[str] | None) -> str | None:
    """Return an absolute path, or None."""
    return None if folder is None else os.path.abspath(_path(folder).expanduser())


def _path(value: Any) -> Path:
    if isinstance(value, str | os.PathLike) and "\0" not in str(value):
        return Path(value)
    raise ValueError("expected a path")


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


IsFolder, IsFile = PlainValidator(_path), PlainValidator(lambda value: _path(value))
Folder = Annotated[str | os.PathLike[str], IsFolder]
"""The path of a folder; held as a ``Path``."""
File = Annotated[str | os.PathLike[str], IsFile]
"""The path of a file; held as a ``Path``."""
Root = Annotated[str, PlainValidator(absolute)]
"""The path of a folder that a run remembers; held as an absolute text."""
Many = BeforeValidator(as_tuple)
"""Marks a field of several values; one alone is several, too."""
Texts = Annotated[str | Sequence[str], Many]
"""One text, or several; held as a tuple."""
Pairs = BeforeValidator(as_texts)
Values = Annotated[Mapping[str, Any], Pairs]
"""Values by key; held as the texts that a user types for them."""
Text = Annotated[str | int | float, BeforeValidator(_text)]
"""A text; a number is one, too. Held as a text."""


class Request(BaseModel):
    """What one command takes, checked.

    A part sets ``heading``: in the help, its own fields are below that.

    Raises:
        UsageFault: a field is unknown, missing, invalid or without effect; in the words of the
            command line.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        defer_build=True,
    )
    needs: ClassVar[Mapping[str, str]] = {}
    """Conditions of effects, in place of those of the fields."""
    command: ClassVar[str] = ""
    """The word after ``gansynth``."""
    settings: ClassVar[str] = "set"
    """The field that takes further arguments of the Python function; none if empty."""
    decided: ClassVar[tuple[str, ...]] = ()
    """Fields that are decided if ``data`` are named, else needed."""
    heading: ClassVar[str]
    leading: ClassVar[tuple[str, ...]] = ()
    """Fields that ``--help`` shows, for a command of many; ``--help-all`` shows every one."""
    headings: ClassVar[Mapping[str, str]] = {}
    """Field -> heading in the help."""
    quiet: bool = False
    """No progress; warnings stay."""

    def __init__(self, /, *args: Any, **given: Any) -> None:
        values = dict(zip(type(self).positional(), args, strict=False)) | given
        if len(args) > len(type(self).positional()):
            without = len(type(self).positional())
            missing = [name for name in type(self).needed() if name not in values]
            name = [*missing, *type(self).leading, "NAME"][0]
            raise UsageFault(
                "request.field-unknown",
                f"{brief(repr(args[without]))}: has no name, expected {name}=...; arguments "
                f"without one: {', '.join(type(self).positional()) or 'none'}",
            )
        for name in values:
            if name not in type(self).model_fields:
                hint = did_you_mean(name, type(self).model_fields)
                raise UsageFault("request.field-unknown", f"{name}: unknown.{hint}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            shown = functools.partial(type(self).shown, values=values)
            raise UsageFault(
                "request.field-invalid", message_of(error, type(self), shown)
            ) from None
        for reason in idle(self.given, self, type(self).conditions(), self.typed, self.called):
            raise UsageFault("request.field-without-effect", reason)
        self.check()

    def check(self) -> None:
        """Refuse values that do not fit together, or cannot be parsed; optional."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        own = dict.fromkeys(cls.__annotations__, cls.heading) if "heading" in vars(cls) else {}
        headings: dict[str, str] = {}
        for base in reversed(cls.__mro__[1:]):
            headings.update(_headings(base))
        headings.update(own)
        for name in cls.model_fields:
            heading = cls.opt(name).heading
            if heading:
                headings[name] = heading
        cls.headings = headings

    @classmethod
    def opt(cls, name: str) -> Opt:
        """Return how a field is typed."""
        for mark in cls.model_fields[name].metadata:
            if isinstance(mark, Opt):
                return mark
        return Opt()

    @classmethod
    def words(cls) -> list[str]:
        """Return the fields of its own and of its parts, without those of every request."""
        return [name for name in cls.model_fields if name not in Request.model_fields]

    @classmethod
    def needed(cls) -> list[str]:
        """Return the fields without a default."""
        return [name for name in cls.words() if cls.model_fields[name].is_required()]

    @classmethod
    def positional(cls) -> list[str]:
        """Return the fields that need no name in Python."""
        return [name for name, field in cls.model_fields.items() if field.kw_only is False]

    @classmethod
    def conditions(cls) -> dict[str, str]:
        """Return field -> the condition of its effect."""
        return {name: cls.opt(name).needs for name in cls.model_fields} | dict(cls.needs)

    @classmethod
    def flag(cls, name: str) -> str:
        """Return the flag of a field."""
        opt = cls.opt(name)
        if opt.argument:
            return opt.metavar or name.upper()
        if opt.called:
            return opt.called
        return opt.flags[-1] if opt.flags else flag_of(name)

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return flag, or the placeholder of what has none -> field, or its ``=False``."""
        flags = {flag: name for name in cls.model_fields for flag in cls.opt(name).flags}
        flags |= {cls.flag(name): name for name in cls.model_fields}
        return flags | {f"--no-{flag[2:]}": f"{name}=False" for flag, name in flags.items()}

    @classmethod
    def is_switch(cls, name: str) -> bool:
        """Whether a field's flag is typed without a value."""
        return cls.model_fields[name].annotation is bool and not cls.opt(name).word

    @classmethod
    def shown(cls, name: str, values: Mapping[str, Any]) -> str:
        """Return a field as it is typed with one of these values."""
        value, flag = values.get(name), cls.flag(name)
        if isinstance(value, bool) and cls.opt(name).word:
            value = text_of(value)
        if value is False:
            on = cls.model_fields[name].default is True
            return flag.replace("--", "--no-", 1) if on else flag
        texts = [str(v) for v in _several(value) if v is not None and v is not True]
        return " ".join([flag, *texts])

    @property
    def given(self) -> list[str]:
        """The fields that the user gave."""
        given = []
        for name, field in type(self).model_fields.items():
            if name in self.model_fields_set:
                value = getattr(self, name)
                if value not in EMPTY and not (value is False and field.default is False):
                    given.append(name)
        return given

    def called(self, name: str) -> str:
        """Return what is typed for a field."""
        return self.shown(name, {name: False} if getattr(self, name, None) is False else {})

    def typed(self, name: str) -> str:
        """Return a field with its value, as typed."""
        return self.shown(name, vars(self))

    @functools.cached_property
    def reporter(self) -> Reporter:
        """Shows progress and warnings of the command."""
        from gansynth.runtime.progress import RichReporter

        return RichReporter(quiet=self.quiet)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within this, its work is done: a dry run has a bar and an end."""
        if not getattr(self, "dry_run", False):
            yield
            return
        with dry_run(self.reporter):
            yield

    def replace(self, *, without: Collection[str] = (), **changes: Any) -> Self:
        """Return a checked copy without some of the given fields, and with others changed."""
        fields = {name: getattr(self, name) for name in self.given if name not in without}
        fields.update(changes)
        changed = type(self)(**fields)
        if changed.quiet == self.quiet:
            changed.__dict__["reporter"] = self.reporter  # which says no warning twice
        return changed

    def refuse_beside(self, *allowed: str, message: str) -> None:
        """Refuse given fields but these; ``message`` has ``{}`` where the flag goes."""
        for name in self.given:
            if name not in allowed and name in self.words():
                raise UsageFault(
                    "request.field-not-allowed", message.replace("{}", self.called(name))
                )

    @property
    def command_line(self) -> list[str]:
        """The words after ``gansynth`` that a user types for it."""
        return self.typed_as({name: getattr(self, name) for name in self.given})

    @classmethod
    def typed_as(cls, values: Mapping[str, Any]) -> list[str]:
        """Return the words after ``gansynth`` of fields with these values, which are not checked.

        A placeholder, as ``NEW``, stands for itself.
        """
        words, last = [cls.command], list[str]()
        first = [name for name in values if cls.opt(name).argument or cls.opt(name).eager]
        for name in dict.fromkeys((*first, *values)):
            value, opt, flag = values[name], cls.opt(name), cls.flag(name)
            several = _several(value)
            if opt.argument and name not in cls.positional():
                last += ["--", *map(str, several)]
            elif opt.argument:
                words += map(str, several)
            elif isinstance(value, bool) and not opt.word:
                words.append(cls.shown(name, values))
            elif isinstance(value, Mapping):
                for key, text in value.items():  # by the setting's own flag, if it was typed so
                    own = isinstance(text, FlagText)
                    words += [flag_of(key), text] if own else [flag, f"{key}={text}"]
            else:
                words += [part for each in several for part in (flag, text_of(each))]
        return [*words, *last]

    def to_json(self) -> dict[str, Any]:
        """Return the given fields with absolute paths, for a process of the same version."""
        document: dict[str, Any] = to_json({name: getattr(self, name) for name in self.given})
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the document of ``to_json``."""
        return cls(**document)


def _several(value: Any) -> Sequence[Any]:
    """Return what is typed one by one: pairs as ``KEY=VALUE``, a value alone as the only one."""
    if isinstance(value, Mapping):
        return [f"{key}={text}" for key, text in value.items()]
    return value if isinstance(value, tuple | list) else (value,)


def _headings(model: type) -> Mapping[str, str]:
    return getattr(model, "headings", {}) if issubclass(model, Request) else {}


def function_of(model: Callable[P, Q], work: Callable[[Q], R], name: str = "") -> Callable[P, R]:
    """Return the Python function of a command: ``work``, with the fields of its request.

    Arguments that are no fields are settings, as after ``--set``. Messages name the arguments. Its
    attribute ``request`` is the class.

    Args:
        name: of the function; by default that of ``work`` without ``run_``.
    """
    cls: Any = model

    @functools.wraps(work)
    def call(*args: P.args, **values: P.kwargs) -> R:
        with in_python(cls):
            request = cls(*args, **_settled(cls, args, values))
            with request.at_work():
                return work(request)

    call.__name__ = name or work.__name__.removeprefix("run_")
    call.request = cls  # type: ignore[attr-defined]
    _explain(call, cls)
    return call


def method_of(model: Callable[P, Q], work: Callable[[S, Q], R]) -> Callable[Concatenate[S, P], R]:
    """Return ``function_of`` as a method: ``work`` also gets the object."""
    cls: Any = model

    @functools.wraps(work)
    def call(self: S, /, *args: P.args, **values: P.kwargs) -> R:
        with in_python(cls):
            return work(self, cls(*args, **_settled(cls, args, values)))

    call.__name__ = work.__name__.removeprefix("_")
    _explain(call, cls, inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY))
    return call


def _settled(cls: Any, args: Sequence[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named arguments, with those that are no fields among the settings."""
    named = dict(values)
    for name, value in (dict(zip(cls.positional(), args, strict=False)) | named).items():
        field = cls.model_fields.get(name)
        kinds = {*alternatives(field.annotation)} - {NoneType} if field else {str}
        other = isinstance(value, str) or (isinstance(value, bool) and bool not in kinds)
        if other and kinds <= {int, float, bool}:
            expected = "True or False" if bool in kinds else "a number"
            raise UsageFault(
                "request.field-invalid", f"{name}={brief(repr(value))}: expected {expected}"
            )
    if cls.settings in cls.model_fields:
        others = {key: named.pop(key) for key in values if key not in cls.model_fields}
        for key in others:  # is one that is missing misspelt?
            known = {*named, *cls.positional()[: len(args)]}
            needed = {*cls.needed(), *(cls.decided if "data" not in known else ())}
            hint = did_you_mean(key, needed - known)
            if hint:
                raise UsageFault("request.field-unknown", f"{key}: unknown.{hint}")
        if others:
            with suppress(ValueError):  # which is refused with its name
                named[cls.settings] = as_texts(named.get(cls.settings)) | others
    return named


def _explain(call: Any, cls: type[Request], *own: inspect.Parameter) -> None:
    """Let ``help`` show the fields of a request as arguments, with plain types and a line each."""
    kinds, fields, first = inspect.Parameter, cls.model_fields, cls.positional()
    names = list(dict.fromkeys((*first, *cls.needed(), *cls.words(), *fields)))
    returned = call.__annotations__.get("return", kinds.empty)
    call.__annotations__ = {name: fields[name].annotation for name in names}
    parameters = [*own]
    for name, plain in get_type_hints(call).items():  # without the marks that check values
        kind = kinds.POSITIONAL_OR_KEYWORD if name in first else kinds.KEYWORD_ONLY
        default = kinds.empty if fields[name].is_required() else fields[name].get_default()
        # `str | None` is shorter than what a `Union` shows.
        shown = reduce(or_, get_args(plain)) if get_origin(plain) is Union else plain
        parameters.append(kinds(name, kind, default=default, annotation=shown))
    if cls.settings in names:
        parameters.append(kinds("settings", kinds.VAR_KEYWORD, annotation=Any))
    call.__signature__ = inspect.Signature(parameters, return_annotation=returned)
    before, _, after = parts_of(inspect.getdoc(call) or "")
    meanings = {}
    for name in names:
        words = words_of_python(cls.names(), " ".join((fields[name].description or "").split()))
        # the type says so
        meanings[name] = re.sub(r"[;.] may be repeated", "", words, flags=re.IGNORECASE)
    call.__doc__ = help_text(before, meanings, after)


def names_of(model: type[Request] | None = None) -> dict[str, str]:
    """Return flag -> argument of every command; those of one command go before the others."""
    names, models = dict[str, str](), [Request]
    for each in models:
        models += each.__subclasses__()
        names |= {flag: name for flag, name in each.names().items() if flag.startswith("-")}
    return names if model is None else names | model.names()


def in_python(model: type[Request], prefix: str = "") -> AbstractContextManager[None]:
    """Let errors name the fields of a request; see ``speaking_python``."""
    return speaking_python(names_of(model), prefix, fields=model.model_fields)


def marks_of(field: FieldInfo) -> list[Any]:
    """Return the marks of a field's type, and of the parts of a union or sequence."""
    found, types = [*field.metadata], [field.annotation]
    while types:
        each = types.pop()
        found += getattr(each, "__metadata__", ())
        types += [part for part in get_args(each) if part is not each]
    return found
