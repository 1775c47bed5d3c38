"""What the documents say of commands, options, exit codes, routes and formats is so, and is all there is."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuzzserver.arguments import EPILOG, make_parser, with_default_command
from fuzzserver.exit_code import ExitCode
from fuzzserver.findings import ALL_CATEGORIES
from fuzzserver.report import json_form
from fuzzserver.report.compare import compare
from fuzzserver.report.compare_forms import comparison_lines
from fuzzserver.report.formats import FORMATS as REPORT_FORMATS
from fuzzserver.report.formats import HTML
from fuzzserver.report.lcov import lcov_text
from fuzzserver.report.model import totals
from fuzzserver.report.path_rules import PathRules
from fuzzserver.report.sarif import KINDS
from fuzzserver.reporting import SUMMARY_VARIABLE
from fuzzserver.verdict import coverage_text
from fuzzserver.web import api, fuzz_data, routes
from fuzzserver.web.gate import PAGE_PATHS
from fuzzserver.webserver import WebServer
from tests.support_docs import (
    CI,
    DOCUMENTS,
    FORMATS,
    FUZZING,
    PROTOCOL,
    ROOT,
    USAGE,
    Table,
    anchors,
    blocks,
    command_lines,
    named,
    prose,
    scripts,
    section,
    tables,
)
from tests.support_report import sample_report
from tests.support_web import request

(SUBPARSERS,) = [each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction)]
COMMANDS: dict[str, argparse.ArgumentParser] = dict(SUBPARSERS.choices)

FOREIGN_OPTIONS = {"--fuzz", "--verbose", "--check", "--ignore-errors", "--slow", "--all-zigs"}
"""Options of other programs that texts name."""

DEFAULTS_OF_THE_MACHINE = {"--jobs N"}
"""Their defaults are other ones elsewhere."""

PLACES = {"INDEX": "0", "NUMBER": "1", "FINDING": "a" * 12, "FORMAT": "lcov", "NAME": "app"}
"""What stands for these words in routes. ``ID`` is that of a map or of a finding."""


def written(action: argparse.Action) -> str:
    """An argument as the document writes it."""
    value = action.metavar or ("LEVEL" if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(value)
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}")


def documented(command: str) -> dict[str, str]:
    """What is said of each argument of a command."""
    return {
        named(row[0])[0]: row[1]
        for table in tables(USAGE)
        if table.head[0].startswith("argument of") and command in named(table.head[0])
        for row in table.rows
    }


class TestCommandLine:
    """docs/usage.md."""

    def test_commands(self) -> None:
        """The first table lists the commands, all of them."""
        rows = next(tables(USAGE)).rows
        assert {named(row[0])[0].removeprefix("fuzzserver ") for row in rows} == COMMANDS.keys()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_arguments(self, command: str) -> None:
        """All arguments of a command are explained, as they are called, and no others."""
        assert {written(action) for action in COMMANDS[command]._actions} == documented(command).keys()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_values(self, command: str) -> None:
        """Defaults and choices are those of the parser, and so is what may be repeated."""
        meanings = documented(command)
        for action in COMMANDS[command]._actions:
            name, default = written(action), action.default
            is_told = isinstance(default, str | int | float) and not isinstance(default, bool)
            if is_told and default != argparse.SUPPRESS and name not in DEFAULTS_OF_THE_MACHINE:
                value = default if isinstance(default, str) else f"{default:g}"
                assert f"(default: {value})" in meanings[name], name
            for choice in action.choices or ():
                assert f"`{choice}`" in meanings[name], name
            is_list = isinstance(action, argparse._AppendAction) or action.nargs == "+"
            assert ("may be repeated" in meanings[name]) == is_list, name

    def test_categories(self) -> None:
        """What ``--fail-on`` takes is said, and its two defaults."""
        text = documented("run")["--fail-on KINDS"]
        for category in (*ALL_CATEGORIES, "none"):
            assert f"`{category}`" in text
        defaults = {name: parser.get_default("fail_on") for name, parser in COMMANDS.items()}
        assert defaults["run"] == defaults["demo"] == ALL_CATEGORIES
        assert defaults["report"] == defaults["merge"] == frozenset()
        assert "(default of `run` and `demo`: crash,hang,oom; of the others: none)" in text

    def test_exit_codes(self) -> None:
        """All exit codes are explained by their names, and no others."""
        (table,) = [table for table in tables(USAGE) if table.head[0] == "exit code"]
        meanings = {int(row[0]): row[1] for row in table.rows}
        assert meanings.keys() == set(ExitCode)
        for code in ExitCode:
            assert code.name.lower().replace("_", " ") in meanings[code].lower()
            assert re.search(rf"\b{code.value}\b", EPILOG)

    def test_summary_variable(self) -> None:
        """The variable that names the summary of a job is the one that is read."""
        assert f"`{SUMMARY_VARIABLE}`" in USAGE
        assert f"`{SUMMARY_VARIABLE}`" in CI

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_options_in_texts(self, name: str) -> None:
        """Options that texts name in passing are some command's."""
        options = {
            each
            for parser in COMMANDS.values()
            for action in parser._actions
            for each in action.option_strings
        }
        for code in named(prose(DOCUMENTS[name])):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code):
                assert option in options | FOREIGN_OPTIONS, code


class TestExamples:
    """Command lines in the documents."""

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_blocks(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The command lines of code blocks, also of those in YAML, can be given as they are."""
        for script in scripts(DOCUMENTS[name]):
            for argv in command_lines(script):
                assert refusal(argv, capsys) == "", argv

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_texts(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Those in texts, too; but they may leave arguments out."""
        for code in named(prose(DOCUMENTS[name])):
            for argv in command_lines(code):
                error = refusal(argv, capsys)
                assert error == "" or "the following arguments are required" in error, argv

    def test_they_are_found(self) -> None:
        """The two tests above see the recipes."""
        found = [argv for script in scripts(CI) for argv in command_lines(script)]
        assert [argv[0] for argv in found] == ["run", "repro", "run", "run", "run", "merge"]
        assert sum("--report" in argv for argv in found) == 5
        assert found[2][-1] == "html=fuzz-out/fuzz.html"
        codes = named(prose(DOCUMENTS["README.md"]))
        assert ["minimize", "3f2a"] in [argv for code in codes for argv in command_lines(code)]

    def test_a_renamed_option_is_noticed(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The parser that they are given to takes no others."""
        assert "unrecognized arguments: --tyme" in refusal(["run", "--tyme", "2m"], capsys)


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the parser says against arguments; nothing if it takes them."""
    try:
        make_parser().parse_args(with_default_command(argv))
    except SystemExit as end:
        said = capsys.readouterr().err
        return said if end.code else ""
    return ""


class TestRecipes:
    """docs/ci.md."""

    @pytest.mark.parametrize("code", blocks(CI, "yaml"))
    def test_yaml(self, code: str) -> None:
        """Each recipe is whole: jobs with steps, or with a script."""
        recipe = yaml.safe_load(code)
        jobs = recipe.get("jobs", recipe)
        for job in jobs.values():
            assert job.get("steps") or job.get("script")
            for step in job.get("steps", ()):
                assert ("run" in step) != ("uses" in step), step

    def test_files_are_passed_on(self) -> None:
        """What later steps take is what was written before."""
        for code in blocks(CI, "yaml"):
            written = re.findall(r"--report (\w+)=(\S+)", code)
            assert written
            assert {path.split("/")[0] for _, path in written} <= {"fuzz-out", "shards"}
        (github, gitlab, _) = map(yaml.safe_load, blocks(CI, "yaml"))
        upload = github["jobs"]["fuzz"]["steps"][-1]["with"]["sarif_file"]
        assert f"--report sarif={upload}" in CI
        reports = gitlab["fuzz"]["artifacts"]["reports"]
        assert f"--report junit={reports['junit']}" in CI
        assert f"--report cobertura={reports['coverage_report']['path']}" in CI

    def test_coverage_of_gitlab(self) -> None:
        """GitLab takes the percentage from the line that tells it, and from no other."""
        report = sample_report()
        pattern = yaml.safe_load(blocks(CI, "yaml")[1])["fuzz"]["coverage"].strip("/")
        found = re.search(pattern, coverage_text(report))
        assert found is not None
        assert float(re.findall(r"\d+(?:\.\d+)?", found[0])[0]) == round(totals(report.targets).percent, 1)
        assert not any(re.search(pattern, line) for line in comparison_lines(compare(report, report)))
        for text in (CI, USAGE):
            (example,) = re.findall(r"`(\d[^`]* covered: [^`]*)`", " ".join(text.split()))
            assert re.search(pattern, example)


class TestFormats:
    """docs/formats.md."""

    def test_names(self) -> None:
        """All formats are there, each with a section, and no others; and wherever they are listed."""
        names = {*REPORT_FORMATS, HTML}
        assert {named(row[0])[0] for row in next(tables(FORMATS)).rows} == names
        assert names <= set(named(documented("run")["--report FORMAT=PATH"]))
        assert names <= set(named(section(PROTOCOL, "`/report/FORMAT`")))
        for name in names:
            assert section(FORMATS, f"`{name}`").strip()
            COMMANDS["run"].parse_args(["--report", f"{name}=-"])

    def test_lcov(self) -> None:
        """All kinds of lines of an LCOV file are explained, and no others."""
        (table,) = tables(section(FORMATS, "`lcov`"))
        kinds = {line.partition(":")[0] for line in lcov_text(sample_report()).splitlines()}
        assert {name for row in table.rows for name in named(row[0])} == kinds

    def test_json(self) -> None:
        """All fields are explained, and no others."""
        text = section(FORMATS, "`json`")
        schema = json.loads((Path(json_form.__file__).parent / "report.schema.json").read_text())
        parts = schema["$defs"]
        of_report, of_target, of_finding = map(fields, tables(text))
        assert of_report == schema["properties"].keys()
        assert of_target == parts["target"]["properties"].keys()
        assert of_finding == parts["finding"]["properties"].keys()
        for part in ("verdict", "test", "file", "line", "function"):
            assert parts[part]["properties"].keys() <= set(named(text)), part
        assert f"`version` is {json_form.VERSION}" in text

    def test_path_rules(self) -> None:
        """The examples of patterns keep what they say."""
        rules = PathRules(("/p",), ("src/*",))
        assert rules.keeps(rules.name("/p/src/a/b.zig")) and not rules.keeps(rules.name("/p/lib/std/mem.zig"))
        assert not PathRules((), (), ("*/lib/std/*",)).keeps("/zig/lib/std/mem.zig")
        assert PathRules((), ("*.zig",), ("*/zig-pkg/*",)).keeps("/p/main.zig")

    def test_kinds_of_findings(self) -> None:
        """All kinds are named where findings are explained."""
        text = section(FUZZING, "Findings")
        assert KINDS.keys() | ALL_CATEGORIES <= set(named(text))


def fields(table: Table) -> set[str]:
    """What the first column of a table names."""
    return {name for row in table.rows for name in named(row[0])}


class TestProtocol:
    """docs/protocol.md: the routes. tests/test_protocol_document.py has the messages."""

    def test_routes(self) -> None:
        """Every route is named."""
        known = set(named(PROTOCOL))
        paths = {*PAGE_PATHS, *routes.SCRIPTS, *routes.WASM, *routes.SOURCES, routes.METRICS}
        assert {path.removeprefix("/debug") or "/" for path in paths} <= known
        assert {route.path for route in api.ROUTES} <= known

    def test_metrics(self, web_server: WebServer) -> None:
        """All metrics are explained, with their types, and no others."""
        (table,) = [table for table in tables(PROTOCOL) if table.head[0] == "metric"]
        text = request(web_server.port, routes.METRICS).body.decode()
        suffixes = {"counter": "_total", "info": "_info", "gauge": ""}
        told = {f"{name}{suffixes[kind]}": kind for name, kind in re.findall(r"# TYPE (\w+) (\w+)", text)}
        assert {named(row[0])[0]: row[1] for row in table.rows} == told

    def test_no_other_routes(self) -> None:
        """What is named in a table of routes is served."""
        rows = [row for table in tables(PROTOCOL) if table.head[0] == "route" for row in table.rows]
        patterns = [pattern for pattern, _ in fuzz_data.ROUTES]
        patterns += [api._pattern(route.path) for route in api.ROUTES]
        pages = (*PAGE_PATHS, *routes.SCRIPTS, *routes.WASM, *routes.SOURCES, routes.METRICS)
        patterns += map(re.escape, pages)
        patterns += [r"/app\.js", r"/app\.css", r"/(points|source)/[0-9a-f]{16}(/1)?"]
        for path in (name for row in rows for name in named(row[0])):
            for word, value in PLACES.items():
                path = path.replace(word, value)
            served = [path.replace("ID", "a" * 16)]
            assert any(re.fullmatch(pattern, each) for pattern in patterns for each in served), path


class TestLinks:
    """Links from one document to another."""

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_links(self, name: str) -> None:
        """Links to files of the repository and to their headings lead somewhere."""
        here = ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(DOCUMENTS[name])):
            path, _, anchor = target.partition("#")
            file = here if not path else (here.parent / path).resolve()
            assert file.exists(), target
            if anchor:
                assert anchor in anchors(file.read_text()), target

    def test_they_are_found(self) -> None:
        """The test above sees anchors."""
        assert {"run-and-demo", "exit-codes", "what-is-kept"} <= anchors(USAGE)


def test_fields_of_any_text() -> None:
    """What reads the tables takes a sign that is written out for no end of a cell."""
    table: Any = next(tables("| a | b |\n|---|---|\n| `x \\| y` | z |\n"))
    assert table == (["a", "b"], [["`x \\| y`", "z"]])
