"""What is told as it is: exported files, seconds."""

from __future__ import annotations

from gansynth.report.blocks import Block, Column, More, Row, Table, Words
from gansynth.report.document import Node, pattern
from gansynth.report.words import Line, derived, number, whole


def identity(root: Node) -> list[Block]:
    """What was found in exported files that names somebody."""
    node = root["identity"]
    findings = [finding for finding in node["findings"] if finding.text]
    if node["files"].number is None and not findings:
        return [Words(["No exported files were looked at."], "note")]
    where: Line = [f" in {node['folder'].text}"] if node["folder"] else []
    looked: Line = [whole(node["files"]), " exported files", *where, " were looked at"]
    if not findings:
        return [Words([*looked, "; nothing that names anybody was found."])]
    rows = [Row([[finding.text]], pointer=finding.pointer) for finding in findings]
    table = Table("Found in exported files", [Column("finding", "words")], rows)
    return [Words([*looked, "."]), table]


def seconds(root: Node) -> list[Block]:
    """What the evaluation took."""
    known = [(name, node) for name, node in root["seconds"].members() if node.number is not None]
    if not known:
        return [Words(["Nothing is known of the time it took."], "note")]
    rows = [Row([[name], [number(node, 1)]]) for name, node in known]
    of = pattern("seconds", [name for name, _ in known])
    total = derived("sum", [node for _, node in known], 1, of=of, holder="/seconds")
    table = Table("What took how long", [Column("part", "words"), Column("seconds")], rows)
    return [Words(["In all ", total, " s."]), More("Part by part", [table])]
