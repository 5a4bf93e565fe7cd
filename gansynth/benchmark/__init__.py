"""Arms x draws x seeds on the user's own cases, paired statistics, and a report that says it."""

import sys
from types import ModuleType
from typing import Any


class _Command(ModuleType):
    """This package, which is also the function ``gansynth.benchmark``."""

    def __call__(self, *arguments: Any, **words: Any) -> dict[str, Any]:
        from gansynth.benchmark.api import benchmark

        document: dict[str, Any] = benchmark(*arguments, **words)
        return document


sys.modules[__name__].__class__ = _Command
