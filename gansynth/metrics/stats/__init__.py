"""Does an arm differ from its control, by how much, and for whom does that hold?

``compare`` one measure of two arms, ``holm`` for many of them, ``worth`` for a gain told in real
cases. docs/statistics.md says what the numbers mean and how they were checked.
"""
