"""The page's markup, styles and scripts keep the rules of the page. They are only read here: no browser and
no compiler is needed, so these tests run everywhere."""

import re

import pytest

from fuzzserver.web.response import Policy
from fuzzserver.web.routes import PAGE_FILE
from tests.support_page import HTML, SCRIPTS, STYLES, WEB, without_comments

ALL_SCRIPTS = "\n".join(SCRIPTS.values())
ALL_STYLES = "\n".join(without_comments(style) for style in STYLES.values())

MARKUP_FROM_STRINGS = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "setHTML",
    "setHTMLUnsafe",
    "document.write",
    "createContextualFragment",
    "DOMParser",
    "srcdoc",
    "eval(",
    "new Function(",
    "javascript:",
    "trustedTypes",
)


def html_ids() -> list[str]:
    """The ids that index.html gives."""
    return re.findall(r'\bid="([^"]+)"', HTML)


def test_ids_are_unique() -> None:
    """No id is given to two elements of index.html."""
    assert sorted(html_ids()) == sorted(set(html_ids()))


def test_what_names_an_id_names_one_that_exists() -> None:
    """Labels, controls and popovers point somewhere."""
    names = r'\b(?:aria-(?:labelledby|controls|describedby|owns)|popovertarget|for)="([^"]+)"'
    named = {each for value in re.findall(names, HTML) for each in value.split()}
    assert named
    assert sorted(named - set(html_ids())) == []


def test_no_id_looks_like_a_place() -> None:
    """What stands behind the # of an address means a place in the coverage, not an element."""
    assert [name for name in html_ids() if re.fullmatch(r"[lf]\d+|coverage|findings|corpus|log", name)] == []


def test_a_strict_content_security_policy_holds() -> None:
    """index.html holds no script, no style and no handler of its own, and no script writes any."""
    assert re.findall(r"<script(?![^>]*\ssrc=)", HTML) == []
    assert re.findall(r"<style\b", HTML) == []
    assert re.findall(r"<[^>]*\sstyle=", HTML) == []
    assert re.findall(r"<[^>]*\son\w+=", HTML) == []
    assert "style=" not in ALL_SCRIPTS
    assert re.findall(r"""setAttribute\(\s*["'](?:style|on\w+)""", ALL_SCRIPTS) == []
    assert "'unsafe-inline'" not in Policy.OWN_PAGE
    assert "'unsafe-eval'" not in Policy.OWN_PAGE
    assert "require-trusted-types-for 'script'" in Policy.OWN_PAGE


@pytest.mark.parametrize("word", MARKUP_FROM_STRINGS)
def test_no_string_becomes_markup_or_code(word: str) -> None:
    """Nothing needs to be escaped where nothing is parsed."""
    assert [name for name, text in {**SCRIPTS, "index.html": HTML}.items() if word in text] == []


def test_no_other_host_is_asked_for_anything() -> None:
    """No file of the page holds an absolute URL, nor one that only lacks the scheme."""
    for text in (HTML, *SCRIPTS.values(), *STYLES.values()):
        urls = re.findall(r"\b(?:https?|wss?)://[^\"'\s>]*", text)
        assert [url for url in urls if not url.startswith("http://www.w3.org/")] == []  # A namespace's name.
        assert re.findall(r"""(?:src|href)=["']//|url\(\s*["']?//|@import""", text) == []


def test_what_the_page_loads_is_there_and_is_served() -> None:
    """index.html names files that exist, and all files of the page have names that the server serves."""
    wanted = re.findall(r'<(?:script src|link rel="stylesheet" href)="([^"]+)"', HTML)
    assert "main.js" in wanted
    assert [name for name in wanted if not (WEB / name).is_file()] == []
    assert {name for name in wanted if name.endswith(".css")} == set(STYLES)
    assert [name for name in (*SCRIPTS, *STYLES) if not PAGE_FILE.fullmatch(f"/{name}")] == []


def test_every_class_that_is_styled_is_used() -> None:
    """The style sheets hold no rule for a class that nothing carries."""
    styled = set(re.findall(r"\.([a-z][\w-]*)(?=[^{}]*\{)", ALL_STYLES))
    words = set(re.findall(r"[\w-]+", HTML + ALL_SCRIPTS))
    assert styled
    assert sorted(styled - words) == []


def test_every_id_that_is_styled_is_used() -> None:
    """The style sheets hold no rule for an id that nothing has."""
    styled = set(re.findall(r"#([a-zA-Z][\w-]*)(?=[^{};]*\{)", ALL_STYLES))
    words = set(re.findall(r"[\w-]+", HTML + ALL_SCRIPTS))
    assert styled
    assert sorted(styled - words) == []


def test_every_custom_property_is_defined() -> None:
    """What var() asks for, a sheet or a script sets, or there is another value to take."""
    asked = set(re.findall(r"var\((--[\w-]+)\)", ALL_STYLES))
    given = set(re.findall(r"(--[\w-]+)\s*:", ALL_STYLES)) | set(re.findall(r'"(--[\w-]+)"', ALL_SCRIPTS))
    assert asked
    assert sorted(asked - given) == []


def test_every_theme_colour_is_there_for_both_themes() -> None:
    """One sheet has the colours of both themes, and the others have none of their own."""
    assert "light-dark(" in STYLES["style.css"]
    for name, style in STYLES.items():
        rules = re.findall(r"([\w-]+):([^;{}]*);", without_comments(style))
        own = [
            value
            for key, value in rules
            if re.search(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(", value) and key != "box-shadow"
        ]
        assert name == "style.css" or own == [], name


def test_what_moves_can_be_told_not_to() -> None:
    """Where a sheet animates, the page obeys those who want no motion."""
    assert re.search(r"animation|transition", ALL_STYLES)
    assert "prefers-reduced-motion" in ALL_STYLES
