"""What a test expects to be refused, by the error's id: wordings may be improved at any time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gansynth.runtime.errors import GansynthError


@contextmanager
def raises_fault(
    id: str,
    kind: type[Exception] | tuple[type[Exception], ...] = GansynthError,
    *,
    names: object = "",
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an error of this id, whose message names something: a file, a key, a value."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert isinstance(error, GansynthError)
    assert error.id == id, str(error)
    assert str(names) in str(error)
