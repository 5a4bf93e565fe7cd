"""Damage to files: bytes, headers, texts, documents. Everything comes from one random generator."""

import copy
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

HEADER = 600
"""Bytes in which extreme numbers are written: NIfTI's two headers, those of PNG, blosc2, HDF5."""
PACKED = [
    *(struct.pack(f"{order}{kind}", n) for order in "<>" for kind, n in [
        *(("h", n) for n in (-32768, -1, 0, 1, 7, 32767)),
        *(("i", n) for n in (-(2**31), -1, 0, 2**31 - 1)),
        *(("q", n) for n in (-(2**63), -1, 0, 2**40, 2**63 - 1)),
        *(("f", x) for x in (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 3e38)),
        *(("d", x) for x in (float("nan"), float("inf"), 0.0, 1e300, 5e-324)),
    ]),
]  # fmt: skip
TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
ODD = (
    *("-1", "0", "1e309", "-1e309", "nan", "inf", ".inf", "9" * 40, "9" * 5000, "0x10", "1_000"),
    *("null", "true", "", " ", "~", "{}", "[]", "[[]]", "{[]: 1}", "\0", "\ufeff", "\u202e", "\r"),
    *("../../x", "/etc/passwd", "/dev/zero", ".", "2026-02-30", "2026-01-01", "1:2:3", "x" * 70000),
    *("!!python/object/apply:os.system [id]", "!!binary x", "!!set {a}", "*a", "&a", "<<: *a"),
    *("<b>", "%s", "${HOME}", "; rm -rf x", '"', "'", "#", "\\", "é", "\ud7ff", "[" * 1500),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, 1e-308),
    *(float("nan"), float("inf"), "", " ", "x", "0", "1e3", "nan", "../x", "/etc/passwd", "a\nb"),
    *(
        "\0",
        "x" * 5000,
        [],
        [[]],
        {},
        {"": ""},
        [None],
        [1, "a", None],
        {"a": {"b": []}},
        ["x"] * 2,
    ),
)


def _place(data: bytes, rng: random.Random) -> int:
    """Return an offset, in half of the draws near the beginning."""
    return rng.randrange(max(1, min(len(data), HEADER) if rng.random() < 0.5 else len(data)))


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, _place(data, rng), len(data) - 1, len(data) // 2))]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 2, 4, 8, 64, 512))
    run = rng.choice((b"\0" * size, b"\xff" * size, rng.randbytes(size)))
    return data[:at] + run + data[at + size :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at, start = _place(data, rng), _place(data, rng)
    chunk = rng.choice((data[start : start + 64], rng.randbytes(rng.randrange(1, 64)), data[at:]))
    return data[:at] + chunk + data[at:]


def delete(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 8, 64)) :]


def write_extreme(data: bytes, rng: random.Random) -> bytes:
    """Write an extreme number into the header, mostly where one may lie."""
    number = rng.choice(PACKED)
    at = rng.randrange(max(1, min(len(data), HEADER) // 2)) * 2
    return data[:at] + number + data[at + len(number) :]


BYTES: tuple[Mutator, ...] = (
    *(flip_bits, cut, overwrite, insert, delete),
    *(write_extreme, write_extreme, write_extreme),
)


def _text(change: Callable[[list[str], random.Random], list[str]]) -> Mutator:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        parts = change(TOKEN.findall(data.decode("utf-8", "replace")) or [""], rng)
        return "".join(parts).encode("utf-8", "surrogatepass")

    return mutate


def _odd_token(parts: list[str], rng: random.Random) -> list[str]:
    words = [i for i, part in enumerate(parts) if part[0:1].isalnum()] or [0]
    for _ in range(rng.choice((1, 1, 2))):
        parts[rng.choice(words)] = rng.choice(ODD)
    return parts


def _swap_tokens(parts: list[str], rng: random.Random) -> list[str]:
    a, b = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[a], parts[b] = parts[b], parts[a]
    return parts


def _drop_token(parts: list[str], rng: random.Random) -> list[str]:
    del parts[rng.randrange(len(parts))]
    return parts


def _repeat_part(parts: list[str], rng: random.Random) -> list[str]:
    start, at = rng.randrange(len(parts)), rng.randrange(len(parts))
    return parts[:at] + parts[start : start + rng.randrange(1, 40)] + parts[at:]


def _nest(parts: list[str], rng: random.Random) -> list[str]:
    depth, (left, right) = rng.choice((3, 100, 1500)), rng.choice(("[]", "()", "{}", ("{a: ", "}")))
    at = rng.randrange(len(parts))
    parts[at] = left * depth + parts[at] + right * rng.choice((0, depth))
    return parts


TEXT: tuple[Mutator, ...] = (
    *map(_text, (_odd_token, _odd_token, _odd_token, _swap_tokens, _drop_token, _repeat_part)),
    *(_text(_nest), flip_bits, cut, insert),
)


def documents(load: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> Mutator:
    """Return a mutator that gives values of a document another type, or takes them out."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        doc = load(data)
        places = list(_places(doc))
        for _ in range(rng.choice((1, 1, 2))):
            holder, key = rng.choice(places)
            other, at = rng.choice(places)
            if key not in (holder if isinstance(holder, dict) else range(len(holder))):
                continue
            if rng.random() < 0.15:
                del holder[key]
            elif rng.random() < 0.15 and isinstance(other, dict) and at in other:
                holder[key] = copy.deepcopy(other[at])
            else:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
        return dump(doc)

    return mutate


def _places(doc: Any) -> Any:
    """Yield each dict or list of a document with each of its keys."""
    pairs = (
        doc.items() if isinstance(doc, dict) else enumerate(doc) if isinstance(doc, list) else ()
    )
    for key, value in list(pairs):
        yield doc, key
        yield from _places(value)


def _json(doc: Any) -> bytes:
    return json.dumps(doc).encode()


JSON: tuple[Mutator, ...] = (*TEXT, *[documents(json.loads, _json)] * 2 * len(TEXT))
