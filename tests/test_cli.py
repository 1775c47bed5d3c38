"""The command line: the program as users and scripts start it."""

import logging
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fuzzserver.arguments import make_parser, with_default_command
from fuzzserver.cli import main
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.signals import SIGNALS
from fuzzserver.version import __version__
from fuzzserver.wire.abi import EntryPointHeader, SeenPcsHeader, ToClientTag
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_ports import quiet_port
from tests.support_time import WAIT, eventually
from tests.support_web import request, viewer
from tests.support_zig_children import processes_naming
from tests.support_zig_cli import LISTENING, errors, messages_until, run_cli, running
from tests.support_zig_fake import fake_zig
from tests.support_zig_sources import write

COMMON_OPTIONS = {"--help", "--zig", "--zig-timeout", "--cache-dir", "--log-level", "--version"}
SERVER_OPTIONS = {
    *("--host", "--port", "--port-file", "--lib-dir"),
    *("--allow-host", "--token", "--tls-cert", "--tls-key", "--max-connections"),
}
VERDICT_OPTIONS = {"--fail-on", "--fail-under", "--baseline", "--fail-on-regression"}
REPORT_OPTIONS = {"--report", "--strip-prefix", "--include", "--exclude"}
FUZZ_OPTIONS = {
    *("--test", "--jobs", "--no-web", "--hang-timeout", "--memory-limit", "--corpus", "--watch"),
    *("--time", "--runs", "--until-quiet", "--time-per-test", "--runs-per-test", "--until-quiet-per-test"),
    "--max-findings",
    *VERDICT_OPTIONS,
    *REPORT_OPTIONS,
}
REPRO_OPTIONS = {"--project", "--hang-timeout", "--memory-limit"}
OPTIONS = {
    "demo": COMMON_OPTIONS | SERVER_OPTIONS | FUZZ_OPTIONS,
    "run": COMMON_OPTIONS | SERVER_OPTIONS | FUZZ_OPTIONS | {"--build", "--step"},
    "attach": COMMON_OPTIONS | SERVER_OPTIONS | VERDICT_OPTIONS - {"--fail-on"} | REPORT_OPTIONS | {"--time"},
    "report": COMMON_OPTIONS | VERDICT_OPTIONS | REPORT_OPTIONS | {"--url", "--executable", "--coverage"},
    "merge": VERDICT_OPTIONS | REPORT_OPTIONS | {"--help", "--log-level"},
    "smoke": COMMON_OPTIONS | {"--build", "--step"},
    "serve": COMMON_OPTIONS | SERVER_OPTIONS | {"--executable", "--coverage", "--entry-point", "--source"},
    "repro": COMMON_OPTIONS | REPRO_OPTIONS,
    "minimize": COMMON_OPTIONS | REPRO_OPTIONS,
}


RunHere = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunHere]:
    """As ``run_cli``, but within this process: a new one takes half a second."""
    log = logging.getLogger("fuzzserver")
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    actions = {number: signal.getsignal(number) for number in SIGNALS}

    def run(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
        argv = [str(arg) for arg in args]
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg-cache"))
        try:
            code = main(argv)
        except SystemExit as end:
            code = end.code
        written = capsys.readouterr()
        return subprocess.CompletedProcess(argv, code, written.out, written.err)

    yield run
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)
    for number, action in actions.items():
        signal.signal(number, action)


def serve_args(pair: FuzzedPair, *more: object) -> list[object]:
    """The arguments that show ``pair``."""
    return ["serve", "--executable", pair.executable, "--coverage", pair.coverage_file, *more]


class TestSurroundings:
    """Odd places to run in."""

    def test_no_home(self, debug_pair: FuzzedPair, zig_cache: Path, tmp_path, monkeypatch) -> None:
        """Without a home folder, --cache-dir is all that is needed."""
        monkeypatch.delenv("HOME")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        args = serve_args(debug_pair, "--cache-dir", zig_cache)
        with running(tmp_path, *args) as cli:
            assert request(cli.port(), "/debug/main.wasm").body[:4] == b"\0asm"

    def test_port_file_that_cannot_be_written_leaves_nothing(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """Not even the file that was to become it."""
        (tmp_path / "folder").mkdir()
        done = run_cli(tmp_path, *serve_args(debug_pair, "--port-file", "folder"))
        assert done.returncode == 2
        assert [path.name for path in tmp_path.glob("folder*")] == ["folder"]


class TestServe:
    """Showing what is there."""

    def test_first_lines(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """The first line says where the page is, the second how to get the same port again."""
        with running(tmp_path, *serve_args(debug_pair, "--port", 0)) as cli:
            cli.wait_for_line("hint")
            port = LISTENING.fullmatch(cli.lines[0])[1]
            assert cli.lines[1] == f"info: hint: pass --port {port} to use this same port next time"
            assert request(int(port), "/").status == 200

    def test_given_port(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """A port that was asked for is taken, without a hint."""
        port = quiet_port()
        with running(tmp_path, *serve_args(debug_pair, "--port", port)) as cli:
            assert cli.port() == port
            assert request(port, "/main.js").status == 200
            assert cli.end() == 130
            assert "hint" not in cli.text()

    def test_port_file(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """The port file holds the number of a port that answers, and nothing is left beside it."""
        folder = tmp_path / "ports"
        folder.mkdir()
        (folder / "port").write_text("an old one")
        with running(tmp_path, *serve_args(debug_pair, "--port-file", "ports/port")) as cli:
            port = cli.port()
            eventually(lambda: (folder / "port").read_text() == f"{port}\n", "there is no port file")
            assert [path.name for path in folder.iterdir()] == ["port"]
            assert (folder / "port").stat().st_mode & 0o777 == 0o644

    def test_page_and_coverage(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """The page is served, and its WebSocket brings the tables of the executable."""
        with running(tmp_path, *serve_args(debug_pair)) as cli:
            page = request(cli.port(), "/main.js")
            assert (page.status, page.headers["content-type"]) == (200, "application/javascript")
            assert b"main.zig" in messages_until(cli.port(), ToClientTag.SOURCE_INDEX)
            sources = request(cli.port(), "/sources.tar")
            assert b"fuzzDepth" in sources.body

    def test_entry_points(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """Entry points may be given in decimal and in hexadecimal, and both arrive."""
        first, second = debug_pair.entry_points
        args = serve_args(debug_pair, "--entry-point", first, "--entry-point", f"0X{second:X}")
        with running(tmp_path, *args) as cli:
            message = messages_until(
                cli.port(), ToClientTag.ENTRY_POINTS, lambda data: EntryPointHeader.parse(data).locs_len == 2
            )
            assert len(message) == EntryPointHeader.LAYOUT.size + 2 * 4

    def test_renamed_coverage_file(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """A coverage file may have any name."""
        (tmp_path / "copy").write_bytes(debug_pair.coverage_file.read_bytes())
        with running(tmp_path, "serve", "--executable", debug_pair.executable, "--coverage", "copy") as cli:
            assert messages_until(cli.port(), ToClientTag.SOURCE_INDEX)

    def test_sources(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """Only the sources that are named are shown: files, and folders without what is hidden."""
        write(tmp_path / "one", shown="// first file")
        write(tmp_path / "one" / ".git", hidden="// hidden file")
        single = write(tmp_path / "two", single="// single file", other="// other file")
        args = serve_args(debug_pair, "--source", "one", "--source", single)
        with running(tmp_path, *args) as cli:
            tar = request(cli.port(), "/sources.tar").body
        found = set(re.findall(rb"// (\w+) file", tar))
        assert found == {b"first", b"single"}

    def test_other_page(self, debug_pair: FuzzedPair, zig: Zig, tmp_path) -> None:
        """Zig's own page can be served."""
        with running(tmp_path, *serve_args(debug_pair, "--lib-dir", zig.lib_dir)) as cli:
            page = (zig.lib_dir / "fuzzer" / "web" / "main.js").read_bytes()
            assert request(cli.port(), "/main.js").body == page

    def test_log_level(self, debug_pair: FuzzedPair, tmp_path) -> None:
        """A script that reads the port file may ask for silence."""
        port_file = tmp_path / "port"
        with running(
            tmp_path, *serve_args(debug_pair, "--log-level", "error", "--port-file", port_file)
        ) as cli:
            eventually(port_file.exists, "there is no port file")
            assert cli.end() == 130
            assert cli.lines == []

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signals(self, debug_pair: FuzzedPair, tmp_path, number: int, code: int) -> None:
        """Both signals end the program, with a client connected, and tell by the exit code which it was."""
        with running(tmp_path, *serve_args(debug_pair)) as cli:
            with viewer(cli.port()) as web_socket:
                web_socket.recv(timeout=WAIT)
                assert cli.end(number) == code
            assert "Traceback" not in cli.text()


class Bad(NamedTuple):
    """Input that cannot be used: the command line, in shell words; what the error says; the exit code.

    What stands in braces is filled in by ``test_bad_input``; other names are files of ``bad_files``.
    """

    command: str
    error: str
    code: int = 2


SERVE = "serve --executable {exe} --coverage {coverage}"
BAD_INPUT = {
    "executable missing": Bad(
        "serve --executable /no/exe --coverage {coverage}",
        r"cannot open executable '/no/exe': No such file or directory",
    ),
    "executable empty": Bad("serve --executable empty --coverage {coverage}", "'.*empty' is empty"),
    "executable truncated": Bad(
        "serve --executable truncated --coverage {coverage}",
        r"is truncated: its section headers end at byte \d+",
    ),
    "executable with half a header": Bad(
        "serve --executable half-header --coverage {coverage}",
        "is truncated: 32 bytes, the ELF header alone has 64",
    ),
    "executable is text": Bad(
        "serve --executable text --coverage {coverage}", "'.*text' is not an ELF executable"
    ),
    "executable 32-bit": Bad("serve --executable elf32 --coverage {coverage}", "is not 64-bit"),
    "executable big-endian": Bad("serve --executable elf-be --coverage {coverage}", "is big-endian"),
    "executable is a folder": Bad("serve --executable {dir} --coverage {coverage}", "not a regular file"),
    "executable without instrumentation": Bad(
        "serve --executable {normal} --coverage {coverage}", "belongs to another executable than"
    ),
    "coverage missing": Bad(
        "serve --executable {exe} --coverage /no/file", "cannot open coverage file '/no/file': No such file"
    ),
    "coverage empty": Bad(
        "serve --executable {exe} --coverage empty",
        "coverage file 'empty' is empty: no fuzzer has written it yet",
    ),
    "coverage too short": Bad(
        "serve --executable {exe} --coverage short", "has a header of 24 bytes.*ends after 10"
    ),
    "coverage truncated": Bad(
        "serve --executable {exe} --coverage half", r"claims \d+ PCs.* it is truncated"
    ),
    "coverage with trailing junk": Bad("serve --executable {exe} --coverage longer", r"claims \d+ PCs"),
    "coverage lies about pcs_len": Bad(
        "serve --executable {exe} --coverage lying", r"claims 18446744073709551615 PCs, which takes"
    ),
    "coverage of another executable": Bad(
        "serve --executable {exe} --coverage {other}",
        r"belongs to another executable than .* it lists \d+ PCs",
    ),
    "coverage is a folder": Bad("serve --executable {exe} --coverage {dir}", "not a regular file"),
    "coverage is a text": Bad("serve --executable {exe} --coverage text", "truncated or no coverage file"),
    "busy port": Bad(
        SERVE + " --port {busy}", r"cannot listen on 127\.0\.0\.1 port \d+: Address already in use"
    ),
    "host elsewhere": Bad(SERVE + " --host 192.0.2.1", r"cannot listen on 192\.0\.2\.1 port 0: "),
    "host that is none": Bad(
        SERVE + " --host no.such.host.invalid", "cannot listen on no.such.host.invalid port 0: "
    ),
    "zig missing": Bad(SERVE + " --zig /no/zig", "Zig compiler '/no/zig' does not exist; pip install"),
    "zig not executable": Bad(SERVE + " --zig text", "Zig compiler 'text' is not executable"),
    "zig is a folder": Bad(SERVE + " --zig {dir}", "is not executable"),
    "zig that is too old": Bad(SERVE + " --zig zig13/zig", r"Zig 0\.13\.0 at .* Zig 0\.14 is the oldest"),
    "zig is another program": Bad(SERVE + " --zig /bin/echo", "'/bin/echo version' printed no version, but"),
    "zig fails": Bad(SERVE + " --zig zigfail/zig", "exited with code 1: out of order"),
    "zig hangs": Bad(SERVE + " --zig zighang/zig --zig-timeout 1", "gave no answer in 1 s"),
    "root missing": Bad("run /no/root.zig", "root source file '/no/root.zig' does not exist"),
    "root is a folder": Bad("run {dir}", "is no file"),
    "option without a build.zig": Bad(
        "run {dir}/x.zig -Dfast", "-Dfast is for a build.zig; '.*x.zig' is compiled alone"
    ),
    "step without a build.zig": Bad("run {dir}/x.zig --step check", "--step check is for a build.zig"),
    "no project here": Bad("run", r"there is no build\.zig in '.*': give ROOT\.zig or --build FOLDER"),
    "no project here, and no command": Bad("", r"there is no build\.zig in '.*': give ROOT\.zig or --build"),
    "root and project": Bad("run text --build {dir}", "give ROOT.zig or --build FOLDER, not both"),
    "project missing": Bad("run --no-web --build /no/project", r"there is no build\.zig in '/no/project'"),
    "project without build.zig": Bad("run --no-web --build {dir}", r"there is no build\.zig in '.*folder'"),
    "project is a file": Bad("run --no-web --build text", r"there is no build\.zig in '.*text'"),
    "corpus missing": Bad("demo --corpus /no/corpus", "corpus folder '/no/corpus' does not exist"),
    "corpus is a file": Bad("demo --corpus text", "corpus folder 'text' is no folder"),
    "time in words": Bad("demo --time soon", "'soon' is no time: give seconds, or 90s, 5m, 1h30m"),
    "time in the wrong order": Bad("demo --time 5s1m", "'5s1m' is no time"),
    "time negative": Bad("demo --time=-5", "'-5' is no time"),
    "time zero": Bad("demo --time 0", "'0' is no time"),
    "time empty": Bad("demo --time ''", "'' is no time"),
    "jobs zero": Bad("demo --jobs 0", "'0' is no count: give a whole number, more than 0"),
    "jobs in words": Bad("demo --jobs many", "'many' is no count"),
    "memory limit with a unit": Bad("demo --memory-limit 2G", "'2G' is no count"),
    "hang timeout infinite": Bad("demo --hang-timeout inf", "'inf' is no time"),
    "cache missing": Bad("attach /no/cache", "'/no/cache'"),
    "cache is a file": Bad("attach text", "'text'"),
    "second cache missing": Bad("attach {cache} /no/cache", "'/no/cache'"),
    "cache not given": Bad("attach", "the following arguments are required: CACHE_DIR"),
    "finding unknown": Bad("repro ffff --project project", "no finding 'ffff' in '.*project/.zig-cache/"),
    "finding unknown, to minimize": Bad("minimize ffff", "no finding 'ffff' in .*; give an id, or the path"),
    "finding ambiguous": Bad("repro 3f --project project", "'3f' stands for 2 findings: 3f01, 3f02"),
    "finding without a build": Bad(
        "repro 3f02 --project project", "finding 3f02 cannot be run: this is no stored test command"
    ),
    "finding not given": Bad("repro", "the following arguments are required: FINDING"),
    "source missing": Bad(SERVE + " --source /no/source", "source '/no/source' does not exist"),
    "lib-dir without a page": Bad(
        SERVE + " --lib-dir {dir}", "has no fuzzer/web/index.html or build-web/index.html; --lib-dir"
    ),
    "port file in no folder": Bad(
        SERVE + " --port-file /no/folder/port", "cannot write port file '/no/folder/port': No such file"
    ),
    "port file is a folder": Bad(SERVE + " --port-file {dir}", "cannot write port file"),
    "port is no number": Bad("demo --port http", "argument --port: 'http' is no port"),
    "port too large": Bad("demo --port 65536", "'65536' is no port: give a number from 0 to 65535"),
    "port negative": Bad("demo --port=-1", "'-1' is no port"),
    "allowed host with a path": Bad(
        SERVE + " --allow-host a/b", "'a/b' is no host: give a name or an address"
    ),
    "allowed host that is empty": Bad(SERVE + " --allow-host ''", "'' is no host"),
    "allowed host with no such port": Bad(SERVE + " --allow-host a:99999", "'a:99999' is no host"),
    "no connections": Bad("demo --max-connections 0", "'0' is no count"),
    "certificate missing": Bad(
        SERVE + " --tls-cert /no/cert", "cannot read '/no/cert' for TLS: No such file"
    ),
    "certificate is none": Bad(SERVE + " --tls-cert text", "cannot use 'text' for TLS: it takes .* as PEM"),
    "certificate is a folder": Bad(SERVE + " --tls-cert {dir}", "cannot read '.*folder' for TLS"),
    "key without certificate": Bad(SERVE + " --tls-key text", "the TLS key 'text' needs a certificate"),
    "entry point is no number": Bad(SERVE + " --entry-point main", "'main' is no address: give a decimal or"),
    "entry point hexadecimal without 0x": Bad(SERVE + " --entry-point 10eff", "'10eff' is no address"),
    "entry point too large": Bad(SERVE + " --entry-point 0x10000000000000000", "does not fit into 64 bits"),
    "entry point negative": Bad(SERVE + " --entry-point=-1", "does not fit into 64 bits"),
    "timeout zero": Bad("demo --zig-timeout 0", "'0' is no time"),
    "timeout not a number": Bad("demo --zig-timeout nan", "'nan' is no time"),
    "log level unknown": Bad("demo --log-level loud", "argument --log-level: invalid choice: 'loud'"),
    "cache-dir is a file": Bad(
        "demo --cache-dir text", "cannot write to cache folder .* --cache-dir names another"
    ),
    "executable not given": Bad(
        "serve --coverage {coverage}", "the following arguments are required: --executable"
    ),
    "coverage not given": Bad("serve --executable {exe}", "the following arguments are required: --coverage"),
    "unknown option": Bad("demo --no-such-option", "unrecognized arguments: --no-such-option"),
    "unknown command": Bad("dance", "invalid choice: 'dance'"),
}


@pytest.fixture(scope="module")
def bad_files(debug_pair: FuzzedPair, tmp_path_factory) -> Path:
    """A folder with everything that ``BAD_INPUT`` names."""
    folder = tmp_path_factory.mktemp("bad")
    executable, coverage = debug_pair.executable.read_bytes(), debug_pair.coverage_file.read_bytes()
    header = SeenPcsHeader.parse(coverage)
    files = {
        "empty": b"",
        "text": b"This is no executable, and no coverage file either.\n",
        "truncated": executable[: len(executable) // 2],
        "half-header": executable[:32],
        "elf32": executable[:4] + b"\1" + executable[5:64],
        "elf-be": executable[:5] + b"\2" + executable[6:64],
        "short": coverage[:10],
        "half": coverage[: len(coverage) // 2],
        "longer": coverage + b"junk",
        "lying": SeenPcsHeader(header.n_runs, header.unique_runs, (1 << 64) - 1).serialize() + coverage[24:],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    store = FindingStore(folder / "project" / ".zig-cache" / "fuzzserver" / "findings")
    for name in ("3f01", "3f02"):
        store.add(Finding(name, "panic", "boom", "main.zig", "main.test.fuzz", 1.0, 1.0), b"input")
    fake_zig(folder / "zig13", version={"stdout": "0.13.0\n"})
    fake_zig(folder / "zigfail", version={"stderr": "out of order\n", "exit": 1})
    fake_zig(folder / "zighang", version={"hang": True})
    return folder


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(
    name: str, bad_files: Path, debug_pair: FuzzedPair, safe_pair: FuzzedPair, run_here: RunHere
) -> None:
    """Input that cannot be used ends the program with one line that says what is wrong with it."""
    bad = BAD_INPUT[name]
    with socket.create_server(("127.0.0.1", 0)) as busy:
        command = bad.command.format(
            exe=debug_pair.executable,
            coverage=debug_pair.coverage_file,
            normal=debug_pair.normal_executable,
            other=safe_pair.coverage_file,
            dir=bad_files / "folder",
            cache=debug_pair.step.cache_root,
            busy=busy.getsockname()[1],
        )
        done = run_here(bad_files, *shlex.split(command))
    assert done.returncode == bad.code, done.stderr
    *before, error = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert re.search(bad.error, error), error
    assert done.stdout == ""
    # Whether a port file can be written is seen when there is a port.
    assert [line for line in before if not line.startswith("info: ")] == []
    assert before == [] or "--port-file" in command
    assert processes_naming(str(bad_files / "zig")) == []
    # Nothing is made where a name leads by mistake.
    assert not Path("/no").exists()
    assert list((bad_files / "folder").iterdir()) == []


def test_port_file_in_a_read_only_place(debug_pair: FuzzedPair, tmp_path) -> None:
    """A port file that nobody may write, not even root, is an error, and the server ends."""
    done = run_cli(tmp_path, *serve_args(debug_pair, "--port-file", "/proc/port"))
    assert done.returncode == 2
    (error,) = errors(done.stderr)
    assert error.startswith("error: cannot write port file '/proc/port': ")


def options(text: str) -> set[str]:
    """The options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.replace("zig build test --fuzz", "")))


def test_help(tmp_path) -> None:
    """The help of the program names the commands and the exit codes, on stdout."""
    done = run_cli(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*OPTIONS, "exit codes", "130", "143"):
        assert word in done.stdout


@pytest.mark.parametrize("name", OPTIONS)
def test_help_of_commands(tmp_path, name: str, run_here: RunHere) -> None:
    """The help of a command names all of its options and no others."""
    done = run_here(tmp_path, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert options(done.stdout) == OPTIONS[name]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5s", 1.5), ("0.2", 0.2), ("5m", 300), ("1h30m", 5400), ("1h2m3s", 3723)],
)
def test_time(text: str, seconds: float) -> None:
    """A time may be given as people write it."""
    args = make_parser().parse_args(with_default_command(["--time", text]))
    assert (args.command, args.time) == ("run", seconds)


@pytest.mark.parametrize("args", [["--version"], ["run", "--version"]])
def test_version(tmp_path, args: list[str]) -> None:
    """The version is told on stdout."""
    done = run_cli(tmp_path, *args)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fuzzserver {__version__}\n", "")
