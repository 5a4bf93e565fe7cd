"""Whole sessions in a real browser: by keyboard alone, by touch on a phone, over a restart."""
# mypy: disallow-untyped-calls=False

import time
from typing import Any

import pytest

from gansynth.evaluation.turing import open_session, results
from tests.evaluation.turing.browsing import PHONE, READY, WAIT_MS, begun, opened, pixels
from tests.evaluation.turing.serving import change, raters_of, served

SAID = {"r": "real", "s": "synthetic"}


def wait_for(page: Any, number: int) -> None:
    """Until an image of that number can be answered."""
    page.wait_for_selector(f"#progress:text-matches('^Image {number} of')")
    page.wait_for_selector(READY)
    page.wait_for_timeout(WAIT_MS)


# -- whole sessions --------------------------------------------------------------------------------


def test_a_whole_session_by_keyboard_alone(browser, flat_session):
    change(flat_session, show_results=True, instructions="Look first.\nThen say.")
    keys = "rssrrsrs"
    with served(flat_session) as site:
        page = opened(browser, site.link)
        assert page.locator("#instructions").inner_text() == "Look first.\nThen say."
        page.keyboard.type("Dr. Ito")  # the name has the focus
        page.keyboard.press("Tab")
        page.keyboard.type("12")
        page.keyboard.press("Enter")
        for number, key in enumerate(keys, 1):
            wait_for(page, number)
            assert page.locator("#live").inner_text() == f"Image {number} of 8"
            page.keyboard.press(key)
        page.wait_for_selector("#end:not([hidden])")
        assert page.evaluate("document.activeElement.textContent") == "Thank you"
        (rater,) = raters_of(flat_session)
        assert [one["answer"] for one in rater.answers] == [SAID[key] for key in keys]
        assert all(one["ms"] >= 300 for one in rater.answers)
        table = results(flat_session)["raters"][0]["table"]
        cells = [page.locator(f"#{name}").inner_text() for name in ("rr", "rs", "sr", "ss")]
        counts = ("real_as_real", "real_as_synthetic", "synthetic_as_real")
        assert cells[:3] == [str(table[name]) for name in counts]
        assert page.locator("#accuracy").inner_text().startswith(f"{table['correct']} of 8")
        assert page.said == []
        outside = [url for url in page.asked if not url.startswith(f"http://{site.host}/")]
        assert outside == []
        assert page.url == f"http://{site.host}/"
        page.context.close()


def test_a_whole_session_by_touch_on_a_phone(browser, deep_session):
    with served(deep_session) as site:
        page = opened(browser, site.link, **PHONE)
        page.locator("#name").tap()
        page.keyboard.type("B")
        page.locator("text=Begin").tap()
        for number in range(1, 7):
            wait_for(page, number)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.locator("#synthetic" if number % 2 else "#real").tap()
        page.wait_for_selector("#end:not([hidden])")
        assert page.locator("#results").is_hidden()
        assert page.said == []
        page.context.close()
    answers = [one["answer"] for one in raters_of(deep_session)[0].answers]
    assert answers == ["synthetic", "real"] * 3


def test_two_raters_at_once(browser, flat_session):
    with served(flat_session) as site:
        pages = [begun(browser, site.link, name) for name in ("A", "B")]
        for page, key in zip(pages, "rs", strict=True):
            wait_for(page, 1)
            page.keyboard.press(key)
            wait_for(page, 2)
            page.context.close()
    assert [one.answers[0]["answer"] for one in raters_of(flat_session)] == ["real", "synthetic"]


def test_the_next_rater_at_the_same_computer(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link, "A")
        page.click("#seat summary")
        code = page.locator("#mycode").inner_text()
        page.click("#leave")
        page.wait_for_selector("#name:visible")
        page.fill("#name", "A")
        page.click("text=Begin")
        page.wait_for_selector("#said:text('Somebody has begun under this name')")
        page.fill("#code", code)
        page.click("text=Begin")
        page.wait_for_selector(READY)
        assert page.locator("#who").inner_text() == "A"
        page.context.close()


# -- reloads, restarts -----------------------------------------------------------------------------


def test_a_reload_comes_back_to_the_first_image_without_an_answer(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        for number in (1, 2):
            wait_for(page, number)
            page.keyboard.press("r")
        wait_for(page, 3)
        page.wait_for_timeout(400)
        page.reload()
        wait_for(page, 3)
        page.keyboard.press("s")
        wait_for(page, 4)
        page.context.close()
    third = raters_of(flat_session)[0].answers[2]
    assert third["answer"] == "synthetic"
    assert third["ms"] > 700  # what was seen before the reload counts
    assert third["server_ms"] >= third["ms"] - 50


def test_an_answer_survives_a_server_that_has_gone(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        wait_for(page, 1)
    page.keyboard.press("s")
    page.wait_for_selector("#trouble:has-text('Your answer is not kept yet')")
    assert raters_of(flat_session)[0].done == 0
    with served(flat_session):
        wait_for(page, 2)
        assert page.locator("#trouble").is_hidden()
        page.context.close()
    assert [one["answer"] for one in raters_of(flat_session)[0].answers] == ["synthetic"]


def test_an_image_that_was_answered_in_another_window_is_passed_over(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        other = page.context.new_page()
        other.goto(f"http://{site.host}/")
        wait_for(other, 1)
        other.keyboard.press("r")
        wait_for(other, 2)
        page.bring_to_front()
        page.keyboard.press("s")
        wait_for(page, 2)
        page.context.close()
    assert [one["answer"] for one in raters_of(flat_session)[0].answers] == ["real"]


# -- one answer, one image -------------------------------------------------------------------------


AT_ONCE = """() => {
  const button = document.getElementById("real");
  new MutationObserver(() => button.click()).observe(button, { attributes: true });
  button.click();
}"""
"""Presses the button, and again whenever an image can be answered, much sooner than anybody."""


@pytest.mark.parametrize("how", ["double click", "pressed at once", "held key"])
def test_one_answer_answers_one_image(browser, flat_session, how):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        wait_for(page, 1)
        if how == "double click":
            page.dblclick("#real")
        elif how == "pressed at once":
            page.evaluate(AT_ONCE)
        else:
            for _ in range(5):
                page.keyboard.down("r")
                page.wait_for_timeout(100)
        wait_for(page, 2)
        page.context.close()
    assert raters_of(flat_session)[0].done == 1


def test_letters_can_be_switched_off(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        wait_for(page, 1)
        page.click("#keys summary")
        page.uncheck("#shortcuts")
        page.keyboard.press("r")
        page.wait_for_timeout(200)
        assert raters_of(flat_session)[0].done == 0
        page.context.close()


def test_keys_of_the_browser_are_no_answers(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        wait_for(page, 1)
        for key in ("Control+s", "Alt+r", "Meta+s"):
            page.keyboard.press(key)
        page.wait_for_timeout(200)
        assert raters_of(flat_session)[0].done == 0
        page.context.close()


HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_time_in_which_the_page_was_hidden_is_counted_apart(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        wait_for(page, 1)
        page.evaluate(HIDE, True)
        time.sleep(1.0)
        page.evaluate(HIDE, False)
        page.keyboard.press("r")
        wait_for(page, 2)
        page.context.close()
    (answer,) = raters_of(flat_session)[0].answers
    assert 990 < answer["hidden_ms"] < answer["server_ms"]
    assert answer["ms"] + answer["hidden_ms"] <= answer["server_ms"] + 50


def test_a_browser_without_the_link_is_told_what_to_do(browser, flat_session):
    with served(flat_session) as site:
        page = browser.new_page()
        page.goto(f"http://{site.host}/")
        assert "Open the link that you were given" in page.locator("body").inner_text()
        page.close()


def test_no_page_frames_it_and_no_script_but_its_own_runs(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        for script in ({"content": "document.title = 'taken'"}, {"url": "data:text/javascript,"}):
            with pytest.raises(Exception, match="TrustedScript"):
                page.add_script_tag(**script)
        assert page.title() == "Real or synthetic?"
        outer = page.context.new_page()
        outer.set_content(f'<iframe src="http://{site.host}/"></iframe>')
        outer.wait_for_timeout(300)
        assert outer.frames[-1].query_selector("main") is None
        page.context.close()


def test_a_slice_is_shown_to_the_byte(browser, flat_session):
    with served(flat_session) as site:
        page = begun(browser, site.link)
        shown = pixels(page)
        page.context.close()
    first = raters_of(flat_session)[0].order[0]
    assert shown == open_session(flat_session).images[first].ravel().tolist()
