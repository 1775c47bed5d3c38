"""The parts of the page agree with each other. They are only read here: what one names, another has."""

import re

from fuzzserver.wire.abi import OwnTag
from tests.support_page import HTML, SCRIPTS, ZIG, without_comments

MAIN_ZIG = ZIG["main.zig"]
CODE = {name: without_comments(text) for name, text in SCRIPTS.items()}
ALL_CODE = "\n".join(CODE.values())

IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "\./([\w-]+\.js)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:function|const|let|class) (\w+)(.*)", re.MULTILINE)


def imported_names(name: str) -> list[tuple[str, str, str]]:
    """What a module imports: module, name there, name here."""
    found = []
    for names, _, module in IMPORT.findall(CODE[name]):
        for each in filter(None, (part.strip() for part in names.split(","))):
            there, _, here = each.partition(" as ")
            found.append((module, there, here or there))
    return found


def exported_names(name: str) -> list[str]:
    """What a module has for others; one declaration may hold several constants."""
    found = []
    for first, rest in EXPORT.findall(CODE[name]):
        found += [first, *re.findall(r", ([A-Z_]+) = ", rest)]
    return found


def test_every_id_that_a_script_asks_for_exists() -> None:
    """index.html has it, or a module makes it."""
    wanted = set(re.findall(r'\bbyId\("([^"]+)"\)', ALL_CODE))
    made = set(re.findall(r'"([A-Za-z][\w-]*)"', re.sub(r'\bbyId\("[^"]+"\)', "", ALL_CODE)))
    in_html = set(re.findall(r'\bid="([^"]+)"', HTML))
    assert len(wanted) > 30
    assert sorted(wanted - in_html - made) == []


def test_every_element_of_the_frame_is_used() -> None:
    """No id of index.html is a leftover."""
    in_html = set(re.findall(r'\bid="([^"]+)"', HTML))
    elsewhere = re.sub(r'\bid="[^"]+"', "", HTML) + ALL_CODE
    words = set(re.findall(r"[\w-]+", elsewhere))
    built = {f"{prefix}{name}" for prefix in ("tab", "panel") for name in ("Files", "Functions", "New")}
    styled_only = {"headButtons", "main", "side", "history", "numbers"}
    assert sorted(in_html - words - built - styled_only) == []


def test_what_scripts_ask_of_wasm_is_what_it_answers() -> None:
    """What is called is exported, and no export is there for nothing."""
    called = set(re.findall(r"\b(?:wasm|exports)\??\.(\w+)", ALL_CODE)) - {"memory", "js"}
    exported = set(re.findall(r"^export fn (\w+)\(", MAIN_ZIG, re.MULTILINE))
    assert len(exported) > 30
    assert sorted(called - exported) == []
    assert sorted(exported - called) == []


def test_every_import_of_the_wasm_is_supplied() -> None:
    """What main.zig imports, both loaders supply."""
    imported = set(re.findall(r'extern "js" fn (\w+)\(', MAIN_ZIG))
    assert imported
    for name in ("wasm.js", "main.js"):
        supplied = re.search(r"\bjs: \{(.*?)\}[,\s]*\}", CODE[name], re.DOTALL)
        assert supplied is not None, name
        assert set(re.findall(r"(\w+): \(", supplied[1])) == imported, name


def test_the_numbers_of_received_messages_agree() -> None:
    """The outcomes that connection.js names have the same numbers in main.zig."""
    enum = re.search(r"const Received = enum\(u32\) \{(.*?)\};", MAIN_ZIG, re.DOTALL)
    assert enum is not None
    in_zig = {name.upper(): int(value) for name, value in re.findall(r"(\w+) = (\d+),", enum[1])}
    declared = "".join(
        re.findall(r"^const [A-Z_]+ = \d+(?:, [A-Z_]+ = \d+)*;$", CODE["connection.js"], re.MULTILINE)[:2]
    )
    in_script = {name: int(value) for name, value in re.findall(r"([A-Z_]+) = (\d+)", declared)}
    assert {"MALFORMED", "NEW_INDEX", "COVERAGE", "POINTS"} <= set(in_script)
    assert in_script.items() <= in_zig.items()


def test_the_tags_of_our_messages_agree() -> None:
    """The server sends what the page's wasm knows."""
    enum = re.search(r"enum\(u8\) \{(.*?)\};", ZIG["abi.zig"], re.DOTALL)
    assert enum is not None
    known = {name.upper(): int(value) for name, value in re.findall(r"(\w+) = (\d+)", enum[1])}
    assert {tag.name: tag.value for tag in OwnTag}.items() <= known.items()


def test_every_imported_name_is_exported() -> None:
    """No module asks another for what it does not have."""
    for name in CODE:
        for module, there, _ in imported_names(name):
            assert there in exported_names(module), f"{name} imports {there} from {module}"


def test_every_imported_name_is_used() -> None:
    """No import is a leftover."""
    for name, text in CODE.items():
        body = IMPORT.sub("", text)
        names = [here for _, _, here in imported_names(name)] + [
            each for _, each, _ in IMPORT.findall(text) if each
        ]
        assert [each for each in names if not re.search(rf"\b{each}\b", body)] == [], name


def test_every_exported_name_is_imported() -> None:
    """No export is a leftover. Each part of the page is started by app.js."""
    used = {(module, there) for name in CODE for module, there, _ in imported_names(name)}
    whole = {module for name in CODE for _, star, module in IMPORT.findall(CODE[name]) if star}
    for name in CODE:
        left = {each for each in exported_names(name) if (name, each) not in used}
        started = {"start"} if name in whole or name == "app.js" else set()
        assert sorted(left - started) == [], name


def test_every_part_is_started() -> None:
    """app.js imports nothing that it does not start."""
    parts = re.search(r"const PARTS = \[(.*?)\];", CODE["app.js"], re.DOTALL)
    assert parts is not None
    listed = re.findall(r"\w+", parts[1])
    assert sorted(listed) == sorted(star for _, star, _ in IMPORT.findall(CODE["app.js"]) if star)


def test_every_module_is_in_the_wasm_behind_those_that_it_imports() -> None:
    """Servers that serve no modules have them in main.wasm, in an order in which they can be loaded."""
    listed = re.findall(r'"([\w-]+\.js)"', ZIG["assets.zig"])
    assert sorted(listed) == sorted(set(CODE) - {"main.js"})
    for name in listed:
        for _, _, module in IMPORT.findall(CODE[name]):
            assert listed.index(module) < listed.index(name), f"{name} imports {module}"


def test_every_style_sheet_is_in_the_wasm() -> None:
    """So that the page looks the same on servers that serve no style sheets, in the same order."""
    assert re.findall(r'"([\w-]+\.css)"', ZIG["assets.zig"]) == re.findall(r'href="([\w-]+\.css)"', HTML)


def test_imports_have_the_form_that_the_loader_rewrites() -> None:
    """main.js finds imports by their form, at the end of a line."""
    for name, text in CODE.items():
        if name != "main.js":
            assert len(re.findall(r"\bfrom \"", text)) == len(IMPORT.findall(text)), name
            assert "import(" not in text, name


def test_every_event_is_told_and_heard() -> None:
    """No module waits for what never comes, or tells what nobody wants to know."""
    told = set(re.findall(r'\bemit\("(\w+)"', ALL_CODE)) | {"server", "findings", "marks"}
    lists = re.findall(r"for \(const event of \[([^\]]*)\]\)", ALL_CODE)
    heard = set(re.findall(r'\bon\("(\w+)"', ALL_CODE)) | {
        each for text in lists for each in re.findall(r'"(\w+)"', text)
    }
    assert sorted(heard - told) == []
    assert sorted(told - heard) == []


def test_every_key_means_one_thing() -> None:
    """No two modules take the same key."""
    keys = re.findall(r'\baddKey\("(.)"', ALL_CODE)
    assert len(keys) > 10
    assert sorted(keys) == sorted(set(keys))
