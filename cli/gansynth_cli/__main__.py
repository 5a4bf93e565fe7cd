"""``gansynth``, and ``python -m gansynth_cli``, for torchrun."""

from gansynth_cli.early import leave_on_sigint


def main() -> None:
    """Entry point of the console script."""
    leave_on_sigint()
    from gansynth_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
