"""Does an experiment arm differ from its control, and by how much? See docs/statistics.md."""
