"""The house, read from its imports: floors, circles and lines. ``python tests/house.py`` prints it.

``python tests/house.py --picture`` draws it for the docs; ``python tests/house.py FOLDER`` counts
another checkout.

Every import counts: inside a function and under ``TYPE_CHECKING``, too. A name of ``gansynth``
itself, which plugins import, counts as one of the module that holds it.
"""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FACE = "gansynth"
FLOORS: Mapping[str, int] = {
    "runtime": 1,
    "core": 2,
    "data": 3,
    "nn": 3,
    "training": 3,
    "report": 3,
    "imaging": 4,
    "conditions": 5,
    "metrics": 5,
    "sampling": 6,
    "plugins": 6,
    "fitting": 7,
    "bank": 7,
    "hosts": 8,
    "testing": 9,
    "adapters": 9,
    "run": 10,
    "cli": 10,
    "gansynth_evaluate": 11,
    "gansynth_benchmark": 12,
    "measure": 13,
}
"""Package of gansynth/ or benchmarks/, or another top-level folder -> floor. A package imports from
lower floors only."""
SHELVES = ("plugins", "adapters", "cli")
BENCHMARKS = ("gansynth_evaluate", "gansynth_benchmark")
PRODUCT = (FACE, *SHELVES, *(f"benchmarks/{name}" for name in BENCHMARKS))
"""Folders of what is packed."""
TESTS = 0.57
"""Lines of tests for a line of the product, at most. Lower it when tests have become shorter."""
Edge = tuple[str, str]


@dataclass(frozen=True)
class House:
    """Modules and their imports of each other.

    Attributes:
        files: dotted module -> its file.
        edges: (importing module, imported module) -> line of the import.
    """

    files: Mapping[str, Path]
    edges: Mapping[Edge, int]

    def package(self, module: str) -> str:
        """The package a module belongs to: ``core``, ``gansynth_nnunet``, ``measure``."""
        parts = module.split(".")
        if parts[0] != FACE:
            return parts[0] if self.shelf(module) in SHELVES + BENCHMARKS else "measure"
        if len(parts) == 1:
            return FACE
        return parts[1] if len(self.files[module].parts) > 2 else "loose"

    def shelf(self, module: str) -> str:
        """The top-level folder of a module; on ``benchmarks/``, the package, or ``measure``."""
        top, below, *_ = self.files[module].parts
        return top if top != "benchmarks" else below if below in BENCHMARKS else "measure"

    def floor(self, module: str) -> int | None:
        """The floor of a module's package; None for the face and for what lies loose."""
        shelf = self.shelf(module)
        return FLOORS.get(self.package(module) if shelf == FACE else shelf)

    def loose(self) -> list[str]:
        """Modules of gansynth/ that lie in no package."""
        return sorted(m for m, f in self.files.items() if f.parts[0] == FACE and len(f.parts) == 2)

    def against_the_floors(self) -> list[Edge]:
        """Imports between packages that do not go down; those of ``gansynth`` itself never do."""
        wrong = []
        for above, below in self.edges:
            high, low = self.floor(above), self.floor(below)
            if self.package(above) == self.package(below) or above == FACE:
                continue
            if high is None or low is None or low >= high:
                wrong.append((above, below))
        return sorted(wrong)

    def circle(self) -> list[str]:
        """Modules that import each other in a circle, if any do."""
        below: dict[str, set[str]] = {}
        for above, imported in self.edges:
            if FACE not in (above, imported):
                below.setdefault(above, set()).add(imported)
        try:
            TopologicalSorter(below).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []


def read_house(root: Path = ROOT) -> House:
    """Read all imports below gansynth/, plugins/, adapters/, cli/ and benchmarks/."""
    files = {}
    for top in (FACE, *SHELVES, "benchmarks"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root / top if top != FACE else root).with_suffix("").parts
            parts = parts[parts[0] == "measure" :]  # which import each other by their names
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            files[name] = path.relative_to(root)
    homes = {"__version__": f"{FACE}.runtime.version"}
    for node in parsed(root / FACE / "__init__.pyi").body:
        if isinstance(node, ast.ImportFrom):
            home = f"{FACE}.{node.module}" if node.level else str(node.module)
            homes |= {alias.name: home for alias in node.names}
    gc.disable()  # it would look through all the trees so far, again and again
    trees = {module: parsed(root / path) for module, path in files.items()}
    gc.enable()
    edges: dict[Edge, int] = {}
    for module, tree in trees.items():
        for line, target, name in _imports(tree):
            if target == FACE:  # whose names are others' modules'
                target = homes.get(name, target)
            whole = f"{target}.{name}" if name else target
            imported = whole if whole in files else target
            if imported in files and imported != module:
                edges.setdefault((module, imported), line)
    return House(files, edges)


@cache
def parsed(path: Path) -> ast.Module:
    """A module's tree."""
    return ast.parse(path.read_text("utf-8"))


def statements(block: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All statements of a block, and of those within them; no expression."""
    for node in block:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from statements(getattr(node, part, ()))


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of everything that is imported."""
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def lines_of(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def density(root: Path, paths: Iterable[Path]) -> dict[str, float]:
    """Expressions of a kind that hide a loop or a name, for 1,000 lines."""
    counts = {"splat": 0, "generator expression": 0, "walrus": 0, "unpacked literal": 0}
    lines = 0
    for path in paths:
        lines += lines_of(root / path)
        for node in ast.walk(parsed(root / path)):
            if isinstance(node, ast.Dict):
                counts["splat"] += node.keys.count(None)
            elif isinstance(node, ast.GeneratorExp):
                counts["generator expression"] += 1
            elif isinstance(node, ast.NamedExpr):
                counts["walrus"] += 1
            elif isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple | ast.List):
                counts["unpacked literal"] += 1  # f(*(a, b), c)
    return {kind: 1000 * count / lines for kind, count in counts.items()}


def table(root: Path = ROOT) -> Iterator[str]:
    """The house as Markdown: files and lines by package; floors and circles.

    Dict splats and generator expressions are for 1,000 lines.
    """
    house = read_house(root)
    yield "| floor | package | files | lines | splats | generator expressions |"
    yield "|--:|---|--:|--:|--:|--:|"
    rows: dict[tuple[int, str], list[Path]] = defaultdict(list)
    for module, path in house.files.items():
        name = house.package(module)
        shelf = house.shelf(module)
        label = name if shelf not in SHELVES else f"{shelf}/{name}"
        rows[house.floor(module) or 0, label].append(path)
    product: list[Path] = []
    scripts: list[Path] = []
    for (floor, label), paths in sorted(rows.items()):
        yield _row(str(floor or "-"), f"`{label}`", root, paths)
        (scripts if label == "measure" else product).extend(paths)
    tests = [path.relative_to(root) for path in (root / "tests").rglob("*.py")]
    yield _row("", "**engine**", root, [path for path in product if path.parts[0] == FACE])
    yield _row("", "**product**", root, product)
    yield _row("", "**scripts**", root, scripts)
    yield _row("", "**tests**", root, tests)
    yield ""
    loose = [name for name in house.loose() if name != FACE]
    yield (
        f"Loose files in `gansynth/`: {len(loose)}. Imports that do not go down: "
        f"{len(house.against_the_floors())}. A circle: {' > '.join(house.circle()) or 'none'}."
    )


def _row(floor: str, label: str, root: Path, paths: Iterable[Path]) -> str:
    files = list(paths)
    lines = sum(lines_of(root / path) for path in files)
    dense = density(root, files)
    shares = f"{dense['splat']:.1f} | {dense['generator expression']:.1f}"
    return f"| {floor} | {label} | {len(files)} | {lines:,} | {shares} |"


def picture(root: Path = ROOT) -> str:
    """The floors as an SVG: a box for each package, wide by its lines; a line for imports."""
    house = read_house(root)
    size: dict[str, int] = defaultdict(int)
    level: dict[str, int] = {}
    for module, path in house.files.items():
        if (floor := house.floor(module)) is not None:
            size[house.package(module)] += lines_of(root / path)
            level[house.package(module)] = floor
    boxes: dict[str, tuple[float, float, float]] = {}
    top = max(level.values())
    for floor in range(top, 0, -1):
        names = sorted(name for name in level if level[name] == floor)
        widths = [max(78.0, size[name] / 90) for name in names]
        left = (WIDE - sum(widths) - 12 * (len(widths) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            boxes[name] = (left, 20 + (top - floor) * 74, width)
            left += width + 12
    pairs = {(house.package(a), house.package(b)) for a, b in house.edges}
    lines = [
        f'<line x1="{_mid(boxes[a]):.0f}" y1="{boxes[a][1] + 34:.0f}" x2="{_mid(boxes[b]):.0f}" '
        f'y2="{boxes[b][1]:.0f}"/>'
        for a, b in sorted(pairs)
        if a != b and a in boxes and b in boxes
    ]
    shapes = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="34" rx="4"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 15:.0f}">{name.removeprefix("gansynth_")}</text>'
        f'<text x="{x + width / 2:.0f}" y="{y + 28:.0f}" class="n">{size[name]:,}</text>'
        for name, (x, y, width) in sorted(boxes.items())
    ]
    floors = [
        f'<text x="8" y="{41 + (top - floor) * 74}" class="f">{floor}</text>'
        for floor in range(1, top + 1)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {20 + top * 74}">'
    return "\n".join([head, STYLE, *lines, *shapes, *floors, "</svg>", ""])


WIDE = 900
STYLE = """<style>
svg{background:#fff} line{stroke:#6b8cae;stroke-opacity:.28} rect{fill:#f3f6fa;stroke:#4a6785}
text{font:12px sans-serif;text-anchor:middle;fill:#1c2b3a} .n{font-size:10px;fill:#5b6b7b}
.f{font-size:14px;fill:#8a97a5;text-anchor:start}
</style>"""


def _mid(box: tuple[float, float, float]) -> float:
    return box[0] + box[2] / 2


if __name__ == "__main__":
    if sys.argv[1:2] == ["--picture"]:
        (ROOT / "docs" / "images" / "floors.svg").write_text(picture(), encoding="utf-8")
    else:
        print("\n".join(table(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
