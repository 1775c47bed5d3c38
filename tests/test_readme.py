"""What the README says is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_example_of_embedding_runs(capsys: pytest.CaptureFixture[str], nothing_left: None) -> None:
    """The code block can be copied as it is; with paths that do not exist it reports, and goes on."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", capsys.readouterr().out)


def test_every_document_is_named() -> None:
    """Whoever begins here finds all that there is to read."""
    documents = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("[A-Z]*.md")]
    for path in documents:
        name = path.relative_to(ROOT)
        assert f"]({name})" in README or path.name == "README.md", name


def test_it_is_short() -> None:
    """What people look things up in is in docs/."""
    assert len(README.splitlines()) <= 150
