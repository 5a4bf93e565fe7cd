"""One module a command, each with ``command``; ``gansynth_cli.main`` imports the one typed."""
