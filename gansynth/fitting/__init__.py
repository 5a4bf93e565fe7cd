"""From a request to a run folder: what ``gansynth fit`` does."""
