"""The files of the page agree with each other. They are only read here: no
browser and no compiler is needed, so these tests run everywhere."""

import re
from pathlib import Path

WEB = Path(__file__).resolve().parent.parent / "lib" / "fuzzer" / "web"
HTML = (WEB / "index.html").read_text(encoding="utf-8")
SCRIPT = (WEB / "main.js").read_text(encoding="utf-8")
STYLE = (WEB / "style.css").read_text(encoding="utf-8")
ZIG = (WEB / "main.zig").read_text(encoding="utf-8")


def html_ids() -> list[str]:
    """The ids that index.html gives."""
    return re.findall(r'\bid="([^"]+)"', HTML)


def test_every_id_that_the_script_asks_for_exists() -> None:
    """Each element that main.js looks up is in index.html."""
    wanted = re.findall(r'\bbyId\("([^"]+)"\)', SCRIPT)
    assert wanted
    assert sorted(set(wanted) - set(html_ids())) == []


def test_every_part_of_a_template_that_the_script_asks_for_exists() -> None:
    """Each class that main.js looks for is given by index.html."""
    wanted = re.findall(r'\b(?:part|querySelector)\("\.([\w-]+)', SCRIPT)
    given = {name for names in re.findall(r'\bclass="([^"]+)"', HTML) for name in names.split()}
    assert wanted
    assert sorted(set(wanted) - given) == []


def test_ids_are_unique() -> None:
    """No id is given to two elements of index.html."""
    ids = html_ids()
    assert sorted(ids) == sorted(set(ids))


def test_no_id_looks_like_a_source_location() -> None:
    """The ids l0, l1, ... are left to the marks that main.zig writes."""
    assert [name for name in html_ids() if re.fullmatch(r"l\d+", name)] == []


def test_every_wasm_function_that_the_script_calls_is_exported() -> None:
    """What main.js calls and what main.zig exports are the same functions."""
    called = set(re.findall(r"\bwasm\.(\w+)\(", SCRIPT))
    exported = set(re.findall(r"^export fn (\w+)\(", ZIG, re.MULTILINE))
    assert called
    assert called == exported


def test_every_import_of_the_wasm_is_supplied() -> None:
    """What main.zig imports and what main.js supplies are the same functions."""
    imported = set(re.findall(r'extern "js" fn (\w+)\(', ZIG))
    supply = re.search(r"\bimports = \{ js: \{(.*?)\} \};", SCRIPT)
    assert supply is not None
    supplied = set(re.findall(r"(\w+): \(", supply[1]))
    assert imported
    assert imported == supplied


def test_the_numbers_of_received_messages_agree() -> None:
    """The outcomes that main.js names have the same numbers in main.zig."""
    enum = re.search(r"const Received = enum\(u32\) \{(.*?)\};", ZIG, re.DOTALL)
    assert enum is not None
    in_zig = {name.upper(): int(value) for name, value in re.findall(r"(\w+) = (\d+),", enum[1])}
    line = re.search(r"^const (MALFORMED = .*);$", SCRIPT, re.MULTILINE)
    assert line is not None
    in_script = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)", line[1])}
    assert in_script.items() <= in_zig.items()


def test_a_strict_content_security_policy_holds() -> None:
    """index.html holds no script, no style and no handler of its own."""
    assert re.findall(r"<script(?![^>]*\ssrc=)", HTML) == []
    assert re.findall(r"<style\b", HTML) == []
    assert re.findall(r"<[^>]*\sstyle=", HTML) == []
    assert re.findall(r"<[^>]*\son\w+=", HTML) == []
    assert "style=" not in SCRIPT + ZIG


def test_no_other_host_is_asked_for_anything() -> None:
    """No file of the page holds an absolute URL, nor one that only lacks the scheme."""
    for text in (HTML, SCRIPT, STYLE):
        assert re.findall(r"\b(?:https?|wss?)://", text) == []
        assert re.findall(r"""(?:src|href)=["']//|url\(\s*["']?//|@import""", text) == []


def test_markup_is_set_in_one_place_only() -> None:
    """Only source that main.zig has escaped becomes markup."""
    assert len(re.findall(r"\binnerHTML\b|\binsertAdjacentHTML\b|\bouterHTML\b", SCRIPT)) == 1


def test_every_class_that_is_styled_is_used() -> None:
    """style.css holds no rule for a class that nothing carries."""
    styled = set(re.findall(r"\.([a-z][\w-]*)(?=[^{}]*\{)", re.sub(r"/\*.*?\*/", "", STYLE, flags=re.DOTALL)))
    highlighting = {name for name in styled if name.startswith("tok-")}
    words = set(re.findall(r"[\w-]+", HTML + SCRIPT))
    assert sorted(styled - highlighting - words) == []
