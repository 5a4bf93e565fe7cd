"""The tables of settings in the docs are those of the code; links, paths, names
and options that pages name are there.

``python tests/test_docs.py`` rewrites the tables. ``make docs`` checks anchors, too.
"""

import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import gansynth
from gansynth.conditions import BUILT_IN
from gansynth.conditions.edits.warps import WarpOptions
from gansynth.core.edit import EditOptions
from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.contract.host import framework
from gansynth.metrics import METRICS
from gansynth.runtime.option_kinds import option_rows
from gansynth.sampling.filters import BUILT_IN as FILTERS
from gansynth_cli.commands.help import section_of
from gansynth_cli.option_tables import options
from tests import site_pages
from tests.house import PRODUCT

DOCS = Path(__file__).parents[1] / "docs"
SOURCES = [DOCS.parent / shelf for shelf in PRODUCT]
HELP = re.compile(r"gansynth help (\w+)((?: [a-z-]+)?)(?=[\"),;.])")
GENERATORS = [path.name.removeprefix("gansynth_") for path in SOURCES[1].glob("gansynth_*")]
PLACES = {
    "loop": ("training.md", "gansynth.training.loop.FitOptions"),
    "every cgan3d": ("cgan3d.md", "gansynth_cgan3d.options.CGANOptions"),
    "cgan3d": ("cgan3d.md", "gansynth_cgan3d.options.CGAN3DOptions"),
    "cgan3d-lesion": ("cgan3d.md", "gansynth_cgan3d.options.CGAN3DLesionOptions"),
    "cgan3d-labels": ("cgan3d.md", "gansynth_cgan3d.options.CGAN3DLabelsOptions"),
    "dcgan": ("dcgan.md", "gansynth_dcgan.options.DCGANOptions"),
    "cpggan": ("cpggan.md", "gansynth_cpggan.options.CPGGANOptions"),
    "copypaste": ("lesion_methods.md", "gansynth_copypaste.model.CopyPasteOptions"),
    "parametric": ("lesion_methods.md", "gansynth_parametric.model.ParametricOptions"),
    "elastic": ("elastic.md", "gansynth_elastic.model.ElasticOptions"),
    "every edit": ("conditions.md", "gansynth.core.edit.EditOptions"),
    "moving edits": ("conditions.md", "gansynth.conditions.edits.warps.WarpOptions"),
    "lesions": ("lesions.md", "gansynth.conditions.lesion_placement.LesionOptions"),
    "segmenter": ("segmenter.md", "gansynth_segmenter.options.SegmenterOptions"),
    "nnunet settings": ("nnunet.md", "gansynth_nnunet.launch.NnunetSettings"),
    "nnunet prepare": ("nnunet.md", "gansynth_nnunet.plans.PrepareSettings"),
    "deepmedic settings": ("deepmedic.md", "gansynth_deepmedic.adapter.DeepMedicSettings"),
    "yolo settings": ("yolo.md", "gansynth_yolo.adapter.YoloSettings"),
    "png settings": ("samples.md", "gansynth.sampling.png_writer.PngOptions"),
    "yolo import": ("boxes.md", "gansynth_yolo.import_slices.ImportSettings"),
    "read volumes": ("volumes.md", "gansynth.data.read_options.FileOptions"),
    "read slices": ("pictures.md", "gansynth.data.slices.SliceOptions"),
    "read pictures": ("pictures.md", "gansynth.data.pictures.PictureOptions"),
    "read yolo": ("boxes.md", "gansynth_yolo.source.YoloOptions"),
    "read coco": ("boxes.md", "gansynth_yolo.coco.CocoOptions"),
    "read deepmedic": ("deepmedic_data.md", "gansynth_deepmedic.source.DeepMedicOptions"),
    "plan": ("benchmark_plan.md", "gansynth_benchmark.plan.BenchmarkPlan"),
    **{
        f"plan {part}": ("benchmark_plan.md", f"gansynth_benchmark.plan.{part.capitalize()}Plan")
        for part in ("host", "arm", "split", "tune", "paper")
    },
}
TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    **{name: (page, pkgutil.resolve_name(where)) for name, (page, where) in PLACES.items()},
    **{f"filter {name}": ("filters.md", installed().filter(name).Options) for name in FILTERS},
    **{f"edit {name}": ("conditions.md", installed().edit(name).Options) for name in BUILT_IN},
}

FILE = (".json", ".log", ".md", ".py")
FOREIGN = {"--c", "--extra-index-url", "--gpus-per-node", "--help", "--node-ip-address"}
FOREIGN |= {"--nodes", "--npz", "--shm-size", "--side", "--val_best"}
"""Options of other programs that pages name alone."""
BASES = (WarpOptions, EditOptions, AugmentRequest)
SHARED: dict[str, Iterable[str]] = {"every edit": (), "moving edits": EditOptions.model_fields}
"""Tables of options that edits share -> options that an earlier one has."""
LIKE = {
    **dict.fromkeys(("cgan3d", "cgan3d-lesion", "cgan3d-labels"), "every cgan3d"),
    **dict.fromkeys(("read slices", "read pictures", "read deepmedic"), "read volumes"),
    **{"read yolo": "read pictures", "read coco": "read yolo", "yolo settings": "segmenter"},
}
"""Tables that leave out the rows of another table."""


def block(name: str) -> str:
    """A table with a line for each setting, between the marks of its page.

    Settings that edits share, and those of a table that it is like, are left out.
    """
    above = rows_of(LIKE[name]) if name in LIKE else ()
    rows = [row for row in rows_of(name) if row not in above]
    head = ["| key | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([f"<!-- {name} -->", *([*head, *rows] if rows else ()), f"<!-- /{name} -->"])


def rows_of(name: str) -> list[str]:
    model = TABLES[name][1]
    base = next((base for base in BASES if issubclass(model, base)), None)
    shared = SHARED.get(name, () if base is None else base.model_fields)
    keys = tuple(f"| `{key}` |" for key in shared)
    needed = {key: "required" for key, field in model.model_fields.items() if field.is_required()}
    rows = [f"| `{k}` | {needed.get(k, v)} | {t} |" for k, v, t in option_rows(model)]
    return [row for row in rows if not row.startswith(keys)]


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_settings_of_the_code(name):
    text = (DOCS / TABLES[name][0]).read_text(encoding="utf-8")
    assert block(name) in text, "run: python tests/test_docs.py"


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_edit_has_a_section_with_a_small_picture(name):
    text = (DOCS / "conditions.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"](images/conditions/{name}.png)" in section
    assert f"<!-- edit {name} -->" in section
    assert (DOCS / "images" / "conditions" / f"{name}.png").stat().st_size < 40_000


def test_every_link_leads_to_a_file():
    dead = []
    for path in (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")):
        file = path.relative_to(DOCS.parent).as_posix()
        for _, link in site_pages.LINK.findall(site_pages.CODE.sub("", path.read_text("utf-8"))):
            target = site_pages.target_of(file, link)
            dead += [(file, link)] if target is None and not link.startswith("http") else []
    assert dead == []


def test_a_page_has_at_most_1500_words():
    long = {path.name for path in DOCS.glob("*.md") if len(path.read_text("utf-8").split()) > 1500}
    assert long <= {"conditions.md"}  # half of the first are tables of edits


def spoken() -> Iterator[tuple[str, str]]:
    """Page and code of every piece of code in the text of docs, decisions and the root's pages."""
    for page in (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")):
        if page.name != "CHANGELOG.md":  # it names what is gone
            text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.M | re.S)
            yield from ((page.name, code) for code in re.findall(r"`([^`\n]+)`", text))


def test_code_of_pages_is_run_by_a_test():
    tests = "".join(path.read_text("utf-8") for path in DOCS.parent.glob("tests/**/test_*.py"))
    unmarked, marks = [], list[str]()
    for page in DOCS.glob("*.md"):
        blocks = re.findall(r"^(.*)\n```python$", page.read_text("utf-8"), re.MULTILINE)
        elsewhere = page.name == "python.md" or page.name.startswith("plugin_")
        if not elsewhere:  # tests/newcomer, test_stranger.py
            unmarked += [page.name for above in blocks if not above.startswith("<!-- run: ")]
        marks += [above.split()[2] for above in blocks if above.startswith("<!-- run: ")]
    assert unmarked == []
    assert [name for name in marks if f'example("{name}"' not in tests] == []


def test_every_path_that_pages_name_is_there():
    made = {"build", "dist", "out", "runs"}  # by commands
    folders = [path for path in DOCS.parent.iterdir() if path.name[0] != "." and path.is_dir()]
    tops = [path for path in folders if path.name not in made]
    there = [*DOCS.parent.iterdir(), *(path for top in tops for path in top.rglob("*"))]
    ends = "".join(f"/{path.relative_to(DOCS.parent).as_posix()}/" for path in there)
    packages = [path for path in (DOCS.parent / "gansynth").iterdir() if path.is_dir()]
    first = "|".join(path.name for path in (*tops, *packages))
    named = re.compile(rf"(?<![\w./{{*-])((?:[\w.-]+/)*[\w-]+\.py|(?:{first})/[\w./-]*)(?![\w*{{])")
    paths = {(page, path) for page, code in spoken() for path in named.findall(code)}
    dead = [pair for pair in paths if f"/{pair[1].rstrip('/')}/" not in ends]
    assert len(paths) > 100
    assert [pair for pair in dead if "gansynth_blobs/" not in pair[1]] == []  # made by a tutorial


def test_every_public_name_that_pages_use_is_there():
    dotted = re.compile(r"\bgansynth(?:_\w+)?(?:\.\w+)+(?![\w*]|\.\w)")
    names = {(page, name) for page, code in spoken() for name in dotted.findall(code)}
    member = re.compile(r"(?<![\w.])([A-Z]\w+)\.([a-z]\w*)")
    members = {(page, *pair) for page, code in spoken() for pair in member.findall(code)}
    dead = [pair for pair in names if not pair[1].endswith(FILE) and not found(pair[1])]
    for page, owner, name in members:
        if owner in gansynth.__all__ and not found(f"gansynth.{owner}", name):
            dead.append((page, f"{owner}.{name}"))
    assert len(names) > 60
    assert len(members) > 20
    assert [pair for pair in dead if pair[1] != "gansynth.commands"] == []  # a group, no module


def found(name: str, member: str = "") -> bool:
    """Whether a dotted name is there, and has a member, which may be a field."""
    try:
        owner = pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    bases = getattr(owner, "__mro__", ())
    fields = {field for base in bases for field in vars(base).get("__annotations__", ())}
    return not member or hasattr(owner, member) or member in fields


def test_every_option_that_pages_name_is_one():
    of_hosts = [framework(host).Options.model_fields for host in installed().names("hosts")]
    fields = [f"--{key.replace('_', '-')}" for keys in of_hosts for key in keys]
    there = {*re.findall(r"--[a-z-]+", site_pages.commands_page()), *fields, *FOREIGN}
    typed = [(page, code.partition("-- ")[0]) for page, code in spoken()]
    own = [pair for pair in typed if pair[1].startswith(("--", "gansynth "))]
    options = {(page, word) for page, code in own for word in re.findall(r"--[a-z][\w-]*", code)}
    assert len(options) > 200
    assert [pair for pair in sorted(options) if pair[1] not in there] == []


NAMES = {"gansynth fit": "generators", "--recipe": "recipes", "--target": "hosts"}
NAMES |= {"--metric": "metrics", "--filter": "filters", "--edit": "edits"}
"""What is typed before a name that is registered."""


def test_every_name_that_commands_of_pages_type_is_registered():
    known, unknown, count = installed(), [], 0
    # Pages on plugins have the reader's own names.
    pages = [page for page in DOCS.glob("*.md") if not page.name.startswith("plugin")]
    pages += [DOCS.parent / "README.md", DOCS.parent / "benchmarks/measure/results/papers.md"]
    for page in pages:
        for line in re.findall(r"^ *gansynth .*", page.read_text("utf-8"), re.MULTILINE):
            for name in re.findall(r"gansynth options ([a-z][\w-]*)", line):
                assert options(name)
            for before, kind in NAMES.items():
                typed = re.findall(rf"{before} ([a-z][\w-]*)(?=\s|$)", line)
                count += len(typed)
                unknown += [(page.name, name) for name in typed if name not in known.names(kind)]
    assert count > 80
    assert unknown == []


def test_the_navigation_has_every_page_once():
    text = (DOCS.parent / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    named = re.findall(r"^ +- (?:.*: )?([\w/.]+\.md)$", text, re.MULTILINE)
    made = {*site_pages.GENERATED, *site_pages.PLACES.values()}
    pages = [name for name in named if name not in made and not name.startswith("benchmarks/")]
    assert sorted(pages) == sorted(path.name for path in DOCS.glob("*.md"))
    assert made <= set(named)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.parent.name)
def test_pages_that_messages_name_are_there(path):
    for file in path.rglob("*.py"):
        for page, section in HELP.findall(file.read_text("utf-8")):
            assert section_of((DOCS / f"{page}.md").read_text("utf-8"), section.strip(), page), file


def test_messages_in_the_faq_are_those_of_the_code():
    rows = re.findall(r"^\| `(.*?)` \|", (DOCS / "faq.md").read_text("utf-8"), re.MULTILINE)
    code = "".join(file.read_text("utf-8") for path in SOURCES for file in path.rglob("*.py"))
    assert rows
    assert [row for row in rows if row not in code] == []


@pytest.mark.parametrize("kind", ["generators", "edits", "filters", "metrics"])
def test_the_gallery_has_everything_built_in(kind):
    text = (DOCS / "gallery.md").read_text("utf-8")
    own: dict[str, Iterable[str]]
    own = {"edits": BUILT_IN, "filters": FILTERS, "metrics": METRICS, "generators": GENERATORS}
    assert [name for name in own[kind] if name not in text] == []
    assert all(png.stat().st_size < 60_000 for png in (DOCS / "images/gallery").glob("*.png"))


if __name__ == "__main__":
    for name in TABLES:
        page = DOCS / TABLES[name][0]
        head, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
        tail = rest.partition(f"<!-- /{name} -->")[2]
        page.write_text(f"{head}{block(name)}{tail}", encoding="utf-8")
