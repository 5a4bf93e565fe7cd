"""``python -m gansynth_cli``: the ``gansynth`` command, for torchrun."""

from gansynth_cli.main import main

if __name__ == "__main__":
    main()
