"""``gansynth papers``: reproduction of a paper's table, beside the original."""
