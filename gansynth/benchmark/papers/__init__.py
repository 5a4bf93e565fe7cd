"""``gansynth papers``: a paper's table made again, ours beside it."""
