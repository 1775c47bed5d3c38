"""The documents, as their tests read them: tables, links, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
"""All texts, by path."""

USAGE, FORMATS, CI = (DOCUMENTS[f"docs/{name}.md"] for name in ("usage", "formats", "ci"))
PROTOCOL, FUZZING = (DOCUMENTS[f"docs/{name}.md"] for name in ("protocol", "fuzzing"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDS_OF_COMMANDS = ("&&", "||", "|", ";", ";;", "&", "(", ")", ">", ">>", "<")

VARIABLES = {
    "$PWD": ["/home/me/project"],
    "$FUZZ_TIME": ["2m"],
    "$TESTS": ["parser.*"],
    "$JOB": ["0"],
    "${baseline[@]}": ["--baseline", "baseline/fuzz.json"],
    "$@": ["--baseline", "baseline.json"],
}
"""What shell variables stand for in the examples."""


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a text in one language."""
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def prose(text: str) -> str:
    """A text without its code blocks."""
    return BLOCK.sub("", text)


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


class Table(NamedTuple):
    """A table of a document."""

    head: list[str]
    rows: list[list[str]]


def tables(text: str) -> Iterator[Table]:
    """The tables of a text, in their order."""
    for found in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found.splitlines()
        ]
        yield Table(head, rows)


def named(text: str) -> list[str]:
    """What a text has in backticks."""
    return re.findall(r"`([^`]+)`", text)


def anchors(text: str) -> set[str]:
    """What links to headings of a text may name, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def scripts(text: str) -> list[str]:
    """The shell code of a text, and of the YAML in it."""
    found = blocks(text, "sh")
    for code in blocks(text, "yaml"):
        found += _texts(yaml.safe_load(code))
    return found


def _texts(value: object) -> Iterator[str]:
    """All texts in what YAML holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def command_lines(script: str) -> Iterator[list[str]]:
    """The arguments of each ``fuzzserver`` that a script runs, as the shell passes them."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if token not in ENDS_OF_COMMANDS:
                command += _expanded(token)
                continue
            if command and command[0] == "fuzzserver":
                yield command[1:]
            command = []


def _expanded(token: str) -> list[str]:
    """A token with the values of variables in it."""
    if token in VARIABLES:
        return VARIABLES[token]
    return [re.sub(r"\$\w+", lambda match: VARIABLES.get(match[0], [match[0]])[0], token)]
