"""The page of one rater: one HTML file with the images, for a browser without any network."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from markupsafe import Markup

from gansynth.report.page import policy, template

SCRIPTS = ("clock.js", "viewer.js", "main.js")
TRUSTED = "require-trusted-types-for 'script'; trusted-types 'none'"
_HERE = "<!-- images -->"


def page_parts(
    about: Mapping[str, Any], instructions: str, images: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the bytes of a page, in order.

    Args:
        about: study, rater, codes of the images, and channels, size and spacing of all; JSON-able.
        instructions: text that the rater reads before the first image.
        images: voxels uint8 (C, D, H, W) of each image, all of one size.
    """
    from jinja2 import Environment, StrictUndefined

    style = template("style.css", __package__)
    script = "".join(template(name, __package__) for name in SCRIPTS)
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        template("page.html", __package__)
    )
    text = page.render(
        policy=f"{policy(style, script)}; {TRUSTED}",
        style=Markup(style),
        script=Markup(script),
        about=Markup(json.dumps(about).replace("<", "\\u003c")),
        count=len(about["codes"]),
        rater=about["rater"],
        instructions=instructions,
    )
    before, _, after = text.partition(_HERE)
    yield before.encode()
    for image in images:
        yield b'<script type="text/plain" class="image">' + base64.b64encode(image) + b"</script>\n"
    yield after.encode()
