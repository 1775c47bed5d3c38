"""The scripts of the page as one module."""

import os
import shutil
import time
from pathlib import Path

import pytest

from fuzzserver import WebServer, paths
from fuzzserver.files import read_regular
from fuzzserver.web.bundle import Bundle, join_modules
from fuzzserver.zig.installation import Zig
from tests.support_browser import Page
from tests.support_page import SCRIPTS
from tests.support_puppet import Puppet

WEB = paths.lib_dir() / "fuzzer" / "web"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three modules, which have not changed for a minute."""
    write(tmp_path / "app.js", 'import { A, C_D as c } from "./one.js";\nexport function start() { A(c); }\n')
    write(tmp_path / "one.js", 'import * as two from "./two.js";\nexport const A = two.log, C_D = 2;\n')
    write(tmp_path / "two.js", "export async function log() {}\nexport class Two {}\n")
    return tmp_path


def write(path: Path, text: str, age: float = 60) -> None:
    """Write a file as if it had been done so many seconds ago."""
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))


def test_modules_become_functions(folder: Path) -> None:
    """Each behind those that it imports, and with all that it exports."""
    assert Bundle(folder, "app.js").content().decode() == (
        "const module_two = (() => {\n"
        "async function log() {}\nclass Two {}\n"
        "return { log, Two };\n})();\n"
        "const module_one = (() => {\n"
        "const two = module_two;\nconst A = two.log, C_D = 2;\n"
        "return { A, C_D };\n})();\n"
        "const module_app = (() => {\n"
        "const { A, C_D: c } = module_one;\nfunction start() { A(c); }\n"
        "return { start };\n})();\n"
        "export const { start } = module_app;\n"
    )


def test_an_edit_is_seen(folder: Path) -> None:
    """In any of the modules, and also one that comes right behind another."""
    bundle = Bundle(folder, "app.js")
    before = bundle.content()
    assert bundle.content() == before
    for number in range(3):
        write(folder / "two.js", f"export const log = {number};\n", age=0)
        assert f"const log = {number};".encode() in bundle.content()
    write(folder / "three.js", "export const x = 3;\n")
    write(folder / "two.js", 'import { x } from "./three.js";\nexport const log = x;\n')
    assert b"const x = 3;" in bundle.content()


def test_nothing_is_read_without_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system notes of the files is enough, if they have not changed just now."""
    names: list[str] = []

    def read(path: Path, limit: int) -> bytes:
        names.append(path.name)
        return read_regular(path, limit)

    monkeypatch.setattr("fuzzserver.web.bundle.read_regular", read)
    monkeypatch.setattr("fuzzserver.web.bundle.SETTLED_NS", -(10**9))
    bundle = Bundle(folder, "app.js")
    before = bundle.content()
    assert names == ["app.js", "one.js", "two.js"]
    assert bundle.content() == before
    assert len(names) == 3
    write(folder / "one.js", "export const A = 3, C_D = 4;\n")
    assert b"C_D = 4" in bundle.content()
    assert names[3:] == ["app.js", "one.js"]


def test_what_cannot_be_read_is_an_error(folder: Path) -> None:
    """Not a page of which a part is missing; and it is there again when the file is."""
    bundle = Bundle(folder, "app.js")
    before = bundle.content()
    (folder / "two.js").rename(folder / "away")
    with pytest.raises(FileNotFoundError):
        bundle.content()
    (folder / "away").rename(folder / "two.js")
    assert bundle.content() == before


def test_the_page_has_the_forms_that_can_be_joined() -> None:
    """No line of the bundle imports or exports but the last one, and no name is one of the bundle's own."""
    text = Bundle(WEB, "app.js").content().decode()
    begun = [line for line in text.splitlines() if line.startswith(("import ", "export "))]
    assert begun == ["export const { start } = module_app;"]
    assert all("module_" not in each and "export let" not in each for each in SCRIPTS.values())
    assert text == join_modules({name: SCRIPTS[name] for name in modules_of(text)})


def modules_of(text: str) -> list[str]:
    """The files of a bundle's modules, in their order."""
    prefix = "const module_"
    return [
        line.removeprefix(prefix).partition(" ")[0] + ".js"
        for line in text.splitlines()
        if line.startswith(prefix)
    ]


def test_the_page_works_with_its_scripts_as_one(
    page: Page, zig: Zig, zig_cache: Path, tmp_path: Path
) -> None:
    """Without any other script but the loader there. What is loaded ahead is not asked for again."""
    lib_dir = tmp_path / "lib"
    shutil.copytree(paths.lib_dir(), lib_dir)
    copied = lib_dir / "fuzzer" / "web"
    content = Bundle(copied, "app.js").content()
    (copied / "app.js").write_bytes(content)
    with WebServer(zig=zig, lib_dir=lib_dir, cache_dir=zig_cache) as server:
        made = Puppet(tmp_path / "made").show(server, 0)
        made.cover(0)
        page.visit(f"{server.url}#f1")
        page.until_text("#statPoints", "1 / 19")
        page.until(lambda: len(page.texts("#sourceScroll .mark")) == 10)
        made.cover_all()
        page.until(lambda: len(page.texts("#sourceScroll .mark.covered")) == 10)
        page.until_text("#statFunctions", "/ ")
        page.press("?")
        page.until_shown("#help")
        names = page.script("return performance.getEntriesByType('resource').map(({ name }) => name)")
        asked = [name.rpartition("/")[2] for name in names if name.endswith((".js", ".wasm"))]
        assert sorted(asked) == ["app.js", "main.js", "main.wasm"]
