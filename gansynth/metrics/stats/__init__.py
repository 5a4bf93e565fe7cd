"""Does an arm differ from its control, by how much, and for whom? See docs/statistics.md."""
