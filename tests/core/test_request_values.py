import pytest

from gansynth.core.requests.base import as_texts, as_tuple


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.5"), (True, "yes"), (None, "none"), ((64, 32), "64,32"), ("1%", "1%")],
)
def test_a_value_is_what_a_user_would_type(value, text):
    assert as_texts({"key": value}) == {"key": text}


def test_one_text_is_one_value():
    assert as_tuple("flip") == ("flip",)
    assert as_tuple(["flip", "elastic"]) == ("flip", "elastic")
    assert as_tuple(None) == ()
