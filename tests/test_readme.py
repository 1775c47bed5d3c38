"""What the README says is so."""

import re
from pathlib import Path

import pytest

from fuzzserver.exit_code import ExitCode
from fuzzserver.web.gate import PAGE_PATHS
from fuzzserver.web.routes import SCRIPTS, SOURCES, WASM

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_example_of_embedding_runs(capsys: pytest.CaptureFixture[str], nothing_left: None) -> None:
    """The code block can be copied as it is; with paths that do not exist it reports, and goes on."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", capsys.readouterr().out)


def test_every_route_and_exit_code_is_named() -> None:
    """Nothing is served and no code is returned that the README does not mention."""
    for path in (*PAGE_PATHS, *SCRIPTS, *WASM, *SOURCES):
        assert path == "/debug" or path.removeprefix("/debug") in README
    for code in ExitCode:
        assert re.search(rf"\| [\d, ]*\b{code.value}\b[\d, ]* \|", README), code


def test_every_file_that_is_linked_exists() -> None:
    """Links to files of the repository, pictures among them, lead somewhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
