"""PNG, JPEG and other pictures: texts, times and cameras beside the pixels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np

from gansynth.quality.traces.look import Look
from gansynth.synthetic import MARK

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_OTHERS = (b"GIF8", b"II*\0", b"MM\0*")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_HARMLESS = frozenset(
    [
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT"),
        *(b"bKGD", b"hIST", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
    ]
)
_SEGMENTS = {0xE1: "EXIF or XMP", 0xED: "IPTC", 0xFE: "a comment"}
_PLAIN = (0xE0, 0xEE)
"""JFIF, Adobe: how colours are coded."""
_TAGS = {270, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 33723, 34665, 34853, 37724}
"""TIFF tags for words, times, machines, and for other metadata."""


def is_picture(data: bytes, name: str) -> bool:
    """Whether it is a picture that is known here."""
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP"
    if data[:2] == b"BM":
        return data[6:10] == bytes(4)
    return data.startswith((_PNG, _JPEG, *_OTHERS))


def read_picture(data: bytes, look: Look) -> None:
    """Look at all that is not pixels, and note the pixels.

    Raises:
        OSError, ValueError, SyntaxError, struct.error, zlib.error: it is damaged.
    """
    if data.startswith(_PNG):
        _png(data, look)
    elif data.startswith(_JPEG):
        _jpeg(data, look)
    _pixels(data, look, known=data.startswith((_PNG, _JPEG)))


def _png(data: bytes, look: Look) -> None:
    at = len(_PNG)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        place = f"PNG chunk {kind.decode('latin-1')}"
        if kind in _TEXTS:
            key, said = _png_text(kind, body)
            if said != MARK:
                look.text(place, said, key=key, odd=f"holds {key!r}: {said!r:.120}, expected none")
        elif kind == b"tIME":
            look.odd(place, "holds a time, expected none")
        elif kind == b"eXIf":
            look.text(place, body.decode("latin-1"), odd="holds EXIF data, expected none")
        elif kind not in _HARMLESS:
            look.text(place, body.decode("latin-1"), odd=f"{length} bytes, expected none")
        if kind == b"IEND":
            break
    _after(data[at:], look)


def _png_text(kind: bytes, body: bytes) -> tuple[str, str]:
    """Keyword and text of a chunk."""
    key, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if kind == b"zTXt":
        return key.decode("latin-1"), zlib.decompress(rest[1:]).decode("latin-1")
    packed = rest[:1] == b"\1"
    said = rest[2:].split(b"\0", 2)[-1]
    return key.decode("latin-1"), (zlib.decompress(said) if packed else said).decode("utf-8")


def _jpeg(data: bytes, look: Look) -> None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xDA:  # pixels from here
            end = data.rfind(b"\xff\xd9")
            return _after(data[end + 2 :] if end > 0 else b"", look)
        body = data[at + 4 : at + 2 + length]
        if kind in _SEGMENTS or (0xE0 <= kind <= 0xEF and kind not in _PLAIN):
            said = _SEGMENTS.get(kind, f"application data ({kind:#x})")
            look.text("JPEG header", body.decode("latin-1"), odd=f"holds {said}, expected none")
        at += 2 + length
    return None


def _after(rest: bytes, look: Look) -> None:
    if rest.strip(b"\0"):
        look.text("after the picture", rest.decode("latin-1"), odd=f"{len(rest)} bytes of data")


def _pixels(data: bytes, look: Look, *, known: bool) -> None:
    from PIL import Image, ImageSequence

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as picture:
            if not known:
                _infos(picture, look)
            for number, frame in enumerate(ImageSequence.Iterator(picture)):
                array = np.asarray(frame)
                look.picture(f"pixels of frame {number}" if number else "pixels", array)
                if array.ndim == 3:
                    for band in range(array.shape[-1]):
                        look.picture(f"pixels of colour {band}", array[..., band])


def _infos(picture: Any, look: Look) -> None:
    """What Pillow finds beside the pixels of a TIFF, GIF, BMP or WebP file."""
    tags = getattr(picture, "tag_v2", {})
    for tag, value in dict(tags).items():
        if tag in _TAGS or isinstance(value, str):
            said = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            look.text(f"TIFF tag {tag}", said, odd=f"holds {said!r:.120}, expected none")
    for key in ("comment", "exif", "xmp", "photoshop"):
        if (value := picture.info.get(key)) and not tags:
            said = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            look.text(f"{picture.format} {key}", said, odd="is there, expected none")
