"""The command line: one file a command, no logic that a Python user could not call."""
