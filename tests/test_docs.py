"""The tables of settings in the docs are those of the code.

``python tests/test_docs.py`` rewrites them.
"""

import re
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

import gansynth
from gansynth.benchmark import plan
from gansynth.conditions import BUILT_IN
from gansynth.conditions.lesion_placement import LesionOptions
from gansynth.core.registry import installed
from gansynth.data.picture_list import PictureOptions
from gansynth.data.reading import VolumeOptions
from gansynth.data.slice_options import SliceOptions
from gansynth.runtime.option_kinds import options_table
from gansynth.sampling.filters import BUILT_IN as FILTERS
from gansynth.testing.scaffold import project
from gansynth.training.loop import FitOptions
from gansynth_cgan3d.model import CGANOptions
from gansynth_copypaste.options import CopyPasteOptions
from gansynth_cpggan.options import CPGGANOptions
from gansynth_dcgan.options import DCGANOptions
from gansynth_deepmedic.cases import DeepMedicOptions
from gansynth_deepmedic.config import DeepMedicSettings
from gansynth_elastic.options import ElasticOptions
from gansynth_nnunet.config import NnunetSettings
from gansynth_nnunet.plans import PrepareSettings
from gansynth_segmenter.options import SegmenterOptions
from gansynth_yolo.config import YoloSettings
from gansynth_yolo.import_slices import ImportSettings
from gansynth_yolo.options import YoloOptions

DOCS = Path(__file__).parents[1] / "docs"
TEMPLATES = Path(project.__file__).parent / "templates"
IMPORT = re.compile(r"^ *from (gansynth[\w.]*) import (.+)$", re.MULTILINE)
TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "loop": ("training.md", FitOptions),
    "cgan3d": ("training.md", CGANOptions),
    "dcgan": ("dcgan.md", DCGANOptions),
    "cpggan": ("cpggan.md", CPGGANOptions),
    "copypaste": ("lesions.md", CopyPasteOptions),
    "elastic": ("elastic.md", ElasticOptions),
    "lesions": ("lesions.md", LesionOptions),
    "segmenter": ("segmenter.md", SegmenterOptions),
    "nnunet settings": ("augment.md", NnunetSettings),
    "nnunet prepare": ("augment.md", PrepareSettings),
    "deepmedic settings": ("deepmedic.md", DeepMedicSettings),
    "yolo settings": ("yolo.md", YoloSettings),
    "yolo import": ("sources.md", ImportSettings),
    "read volumes": ("sources.md", VolumeOptions),
    "read slices": ("sources.md", SliceOptions),
    "read pictures": ("sources.md", PictureOptions),
    "read yolo": ("sources.md", YoloOptions),
    "read deepmedic": ("sources.md", DeepMedicOptions),
    "plan": ("benchmark.md", plan.Plan),
    "plan host": ("benchmark.md", plan.HostPlan),
    "plan generator": ("benchmark.md", plan.GeneratorPlan),
    "plan arm": ("benchmark.md", plan.ArmPlan),
    "plan split": ("benchmark.md", plan.SplitPlan),
    "plan tune": ("benchmark.md", plan.TunePlan),
    "plan paper": ("benchmark.md", plan.PaperPlan),
    **{f"filter {name}": ("filters.md", installed().filter(name).Options) for name in FILTERS},
    **{f"edit {name}": ("conditions.md", installed().edit(name).Options) for name in BUILT_IN},
}


def table(model: type[BaseModel]) -> str:
    """A table with a line for each setting."""
    return "\n".join(options_table(model))


def filled(page: str, text: str) -> str:
    """A page with its tables as they ought to be."""
    for name, (where, model) in TABLES.items():
        if where != page:
            continue
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        tail = rest[rest.index(end) :]
        text = f"{head}{begin}{table(model)}\n{tail}"
    return text


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_settings_of_the_code(name):
    page, model = TABLES[name]
    text = (DOCS / page).read_text(encoding="utf-8")
    told = f"<!-- {name} -->\n{table(model)}\n<!-- /{name} -->"
    assert told in text, "run: python tests/test_docs.py"


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_edit_has_a_section_with_a_small_picture(name):
    text = (DOCS / "conditions.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"](images/conditions/{name}.png)" in section
    assert f"<!-- edit {name} -->" in section
    assert (DOCS / "images" / "conditions" / f"{name}.png").stat().st_size < 40_000


def test_examples_import_what_is_public_from_gansynth_itself():
    wrong = []
    for page in (*DOCS.glob("*.md"), *TEMPLATES.glob("*.txt")):
        for module, names in IMPORT.findall(page.read_text(encoding="utf-8")):
            for name in names.split(", "):
                found = getattr(import_module(module), name)
                if module != "gansynth" and found is getattr(gansynth, name, None):
                    wrong.append((page.name, module, name))
    assert wrong == []


if __name__ == "__main__":
    for page in {page for page, _ in TABLES.values()}:
        found = (DOCS / page).read_text(encoding="utf-8")
        (DOCS / page).write_text(filled(page, found), encoding="utf-8")
