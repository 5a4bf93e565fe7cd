"""What each command takes, told once: a class a command, without numpy or torch."""
