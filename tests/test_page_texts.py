"""JSON texts that tell only what has changed, in a real browser: the page puts them together."""

import random

import pytest

from fuzzserver.status import TestStatus
from fuzzserver.webserver import WebServer
from tests import support_heard, support_puppet
from tests.support_browser import Page
from tests.support_heard import tell
from tests.support_puppet import Puppet, finding

puppet, recorded = support_puppet.puppet, support_heard.recorded


@pytest.fixture
def shown(recorded: Page, web_server: WebServer, puppet: Puppet) -> Page:
    """A page with a target of two tests."""
    tests = (
        TestStatus("main.test.a", "fuzzing", n_runs=5),
        TestStatus("main.test.b", "fuzzing", n_runs=None),
    )
    web_server.set_target(puppet.target(tests=tests))
    recorded.visit(web_server.url)
    recorded.until_text("#statPoints", "0 / 19")
    return recorded


def test_counts_are_those_of_the_tests_in_their_order(shown: Page) -> None:
    """All else that was told of them stays."""
    shown.click("#targetButton")
    shown.until(lambda: shown.texts("#targetList td:nth-child(3)") == ["5 runs", ""])
    tell(shown, counts=[[9_345, None]])
    shown.until(lambda: shown.texts("#targetList td:nth-child(3)") == ["9,345 runs", ""])
    tell(shown, counts=[[9_346, 1]])
    shown.until(lambda: shown.texts("#targetList td:nth-child(3)")[1] == "1 run")
    assert shown.texts("#targetList th .name") == ["main.test.a", "main.test.b"]
    assert shown.texts("#targetList td .badge") == ["fuzzing", "fuzzing"]


def test_splices_replace_a_stretch_of_a_list(shown: Page) -> None:
    """Whatever the stretch: nothing, all, the first ones, the last ones."""
    rng = random.Random(1)
    known = [finding(number).summary() for number in range(4)]
    tell(shown, findings=known)
    shown.go("#findings")
    shown.until_text("#viewFindings", "number 3")
    for turn in range(12):
        start = rng.randrange(len(known) + 1)
        removed = rng.randrange(len(known) - start + 1)
        items = [finding(10 * turn + number).summary() for number in range(10, 10 + rng.randrange(4))]
        known[start : start + removed] = items
        tell(shown, splices={"findings": [start, removed, items]})
        expected = sorted(each["message"] for each in known)
        count = str(len(known)) if known else ""
        shown.until(lambda count=count: shown.text("#viewsFindings") == count)
        shown.until(lambda expected=expected: said(shown, expected))


def said(page: Page, messages: list[str]) -> bool:
    """Whether the list of findings names these and no others."""
    text = page.text("#viewFindings")
    return all(message in text for message in messages) and text.count("number ") == len(messages)
