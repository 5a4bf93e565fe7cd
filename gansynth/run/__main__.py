"""``python -m gansynth.run REQUEST.yaml``."""

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from gansynth.run import run_file
from gansynth.runtime.errors import GansynthError, UsageFault


def main() -> int:
    """Execute a file's requests, and print what they returned as JSON."""
    try:
        if len(sys.argv) != 2:
            raise UsageFault(
                "run.not-one-file", "python -m gansynth.run: expected one file, REQUEST.yaml"
            )
        found = run_file(Path(sys.argv[1]))
    except GansynthError as error:
        sys.stderr.write(f"error: {error.line}\n")
        return error.exit_code
    shown = {name: getattr(value, "report", value) for name, value in found.items()}
    print(json.dumps(shown, indent=2, default=_plain))
    return 0


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


if __name__ == "__main__":
    sys.exit(main())
