"""What a test expects to be refused, by the error's id: wordings may be improved at any time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gansynth.runtime.errors import GansynthError


@contextmanager
def raises_fault(id: str, *, names: object = "") -> Iterator[pytest.ExceptionInfo[GansynthError]]:
    """Expect an error of this id, whose message names something: a file, a key, a value."""
    with pytest.raises(GansynthError) as caught:
        yield caught
    assert caught.value.id == id, str(caught.value)
    assert str(names) in str(caught.value)
