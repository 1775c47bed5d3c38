"""Command lines as the different versions of Zig print them."""

import os
from pathlib import Path

import pytest

from fuzzserver.errors import InputError
from fuzzserver.fuzz.printed_command import is_test_command, parse_test_command

ARGS_0_15 = [
    *("-cflags", "-DSTEP=1", "-DOTHER=a b", "--", "P/src/sc an.c"),
    *("-ODebug", "--dep", "words", "-Mroot=P/src/tool.zig"),
    *("-ODebug", "--dep", "options", "-Mwords=P/src/words.zig"),
    "-Moptions=.zig-cache/c/6c0f723706416e2f0e65427835b9ade8/options.zig",
    *("--test-filter", "plain and simple"),
    *("--cache-dir", ".zig-cache", "--global-cache-dir", "/g", "--name", "my test"),
    *("--zig-lib-dir", "/zig/lib/", "--listen=-"),
]


def line_0_15(project: str) -> str:
    """As Zig 0.15.2 printed it, with other paths."""
    return (
        f'/zig/zig test -cflags -DSTEP=1 "-DOTHER=a b" -- "{project}/src/sc an.c" '
        f'-ODebug --dep words "-Mroot={project}/src/tool.zig" '
        f'-ODebug --dep options "-Mwords={project}/src/words.zig" '
        "-Moptions=.zig-cache/c/6c0f723706416e2f0e65427835b9ade8/options.zig "
        '--test-filter "plain and simple" --cache-dir .zig-cache --global-cache-dir /g --name "my test" '
        "--zig-lib-dir /zig/lib/ --listen=-"
    )


LINE_0_17 = (
    'info(verbose): /zig/zig test -cflags -DSTEP=1 "-DOTHER=a b" -- "src/sc an.c" -Odebug '
    "--dep words -Mroot=src/tool.zig -Odebug --dep options -Mwords=src/words.zig "
    "-Moptions=.zig-cache/o/eb9ca82c909f7c191ed2742b1bd75b3f/options.zig "
    '--test-filter "plain and simple" --cache-dir .zig-cache --global-cache-dir /g --build-root . '
    '--name "my test" --zig-lib-dir /zig/lib/ --listen=-'
)
ARGS_0_17 = [
    *("-cflags", "-DSTEP=1", "-DOTHER=a b", "--", "src/sc an.c", "-Odebug"),
    *("--dep", "words", "-Mroot=src/tool.zig", "-Odebug", "--dep", "options", "-Mwords=src/words.zig"),
    "-Moptions=.zig-cache/o/eb9ca82c909f7c191ed2742b1bd75b3f/options.zig",
    *("--test-filter", "plain and simple", "--cache-dir", ".zig-cache", "--global-cache-dir", "/g"),
    *("--build-root", ".", "--name", "my test", "--zig-lib-dir", "/zig/lib/", "--listen=-"),
]

CACHES = "--cache-dir .zig-cache --global-cache-dir /g"
END = "--name test --zig-lib-dir /zig/lib/ --listen=-"
FRESH = {
    "0.14.0": (
        "-ODebug --dep my_lib -Mroot=/p/src/main.zig -ODebug -Mmy_lib=/p/src/root.zig "
        f"--cache-dir /p/.zig-cache --global-cache-dir /g {END} "
    ),
    "0.14.1": (
        "-ODebug --dep my_lib -Mroot=/p/src/main.zig -ODebug -Mmy_lib=/p/src/root.zig "
        f"--cache-dir /p/.zig-cache --global-cache-dir /g {END} "
    ),
    "0.15.2": f"-ODebug --dep my -Mroot=/p/src/main.zig -Mmy=/p/src/root.zig {CACHES} {END}",
    "0.16.0": f"-ODebug --dep my -Mroot=/p/src/main.zig -Mmy=/p/src/root.zig {CACHES} {END}",
    "0.17.0": f"-Odebug --dep my -Mroot=src/main.zig -Mmy=src/root.zig {CACHES} --build-root . {END}",
}
"""What follows ``zig test`` on the project of ``zig init``, as each release printed it, with other paths.
All but 0.14 end without a space."""

NO_COMMANDS = [
    "info(verbose): /zig/zig build-exe --cache-dir .zig-cache --global-cache-dir /g --build-root . "
    "--zig-lib-dir /zig/lib --name configurer -fsingle-threaded --dep @build --dep @dependencies "
    "-Mroot=/zig/lib/compiler/configurer.zig -M@dependencies=.zig-cache/o/ce72/dependencies.zig "
    "-M@build=build.zig --listen=-",
    "info(verbose): ./.zig-cache/o/94d2f42b/test --cache-dir=./.zig-cache --seed=0xa22d5cd --listen=-",
    "/zig/zig build-lib -ODebug -Mroot=/p/src/root.zig --cache-dir /p/.zig-cache --name test --listen=- ",
    "/p/.zig-cache/o/61d7319e/my test --seed=0x14 --cache-dir=/p/.zig-cache --listen=- ",
    '"./.zig-cache/o/7acefb74/my test" --cache-dir=./.zig-cache --seed=0xf --listen=-',
    "failed command: /zig/zig test -ODebug -Mroot=src/main.zig --cache-dir .zig-cache --name test --listen=-",
    "/zig/zig test src/main.zig",
    "error: while executing test 'main.test.a', the following test command failed:",
    "Build Summary: 3/6 steps succeeded; 1 failed; 1/1 tests passed",
    "+- run test transitive failure",
    "",
    " ",
    "test",
    " test  --listen=- ",
]


def parse(line: str, folder: Path) -> list[str] | None:
    """The arguments of a line, which must then have been recognized as one that may have some."""
    args = parse_test_command(os.fsencode(line), folder)
    assert args is None or is_test_command(os.fsencode(line))
    return args


@pytest.fixture
def project(tmp_path) -> Path:
    """Has the compiler that the lines name, which must exist to be found in what is not quoted."""
    zig = tmp_path / "z ig" / "zig"
    zig.parent.mkdir()
    zig.touch(0o755)
    folder = tmp_path / "my -project test"
    for name in ("src/sc an.c", "src/b.c", "lib foo.a", "src/tool.zig", "src/words.zig"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def unquoted(project: Path, *args: str) -> str:
    """As Zig 0.14 prints it."""
    return "".join(f"{arg} " for arg in (f"{project.parent}/z ig/zig", "test", *args))


@pytest.mark.parametrize("version", FRESH)
def test_fresh_project(version: str, tmp_path: Path) -> None:
    """What a newcomer's project prints is read in every release."""
    zig = tmp_path / "zig"
    zig.touch(0o755)
    prefix = "info(verbose): " if version == "0.17.0" else ""
    assert parse(f"{prefix}{zig} test {FRESH[version]}", tmp_path) == FRESH[version].split()


def test_0_15() -> None:
    """Zig 0.15 and 0.16 quote what has a space in it."""
    assert parse(line_0_15("/a b"), Path("/")) == [arg.replace("P/", "/a b/") for arg in ARGS_0_15]


def test_0_17() -> None:
    """Zig 0.17 has a prefix and paths relative to the project."""
    assert parse(LINE_0_17, Path("/")) == ARGS_0_17


def test_quoted_compiler() -> None:
    """The path of the compiler may be quoted, too."""
    assert parse('"/z ig/zig" test -Mroot=a.zig --listen=-', Path("/")) == ["-Mroot=a.zig", "--listen=-"]


@pytest.mark.parametrize(
    ("printed", "arg"),
    [
        ('"a b"', "a b"),
        (r'"\"\\\$\`\!"', '"\\$`!'),
        (r'"\t\n\E\a"', "\t\n\x1b\a"),
        (r'"zw\303\266lf \342\230\203"', "zwölf ☃"),
        (r'"\377"', "\udcff"),
        (r'"-DX=\"a b\""', '-DX="a b"'),
        ('""', ""),
    ],
)
def test_quoting(printed: str, arg: str) -> None:
    """Zig 0.15 and later escape some characters, and each byte that is no printable ASCII."""
    line = f"/zig/zig test -Mroot=a.zig {printed} --listen=-"
    assert parse(line, Path("/")) == ["-Mroot=a.zig", arg, "--listen=-"]


def test_0_14(project: Path) -> None:
    """Zig 0.14 quotes nothing: arguments with spaces are put together again."""
    args = [arg.replace("P/", f"{project}/") for arg in ARGS_0_15]
    assert parse(unquoted(project, *args), project) == args


@pytest.mark.parametrize(
    "args",
    [
        "src/b.c|src/sc an.c|lib foo.a|-Mroot=src/tool.zig",
        "-x|c|src/sc an.c|-x|none|-Mroot=src/tool.zig",
        "-lfoo|src/b.c|-needed-lbar|lib foo.a|-lc|-Mroot=src/tool.zig",
        "-I|/no such/folder|-isystem|a b|-L|c|-Mroot=src/tool.zig",
        "-DX=a b|-DY=c  d |-Mroot=src/tool.zig",
        "--dep|my words|-Mroot=src/tool.zig|-Mmy words=src/words.zig",
        "-cflags|--|src/b.c|-cflags|-DA=b c|--|src/sc an.c|src/b.c|-Mroot=src/tool.zig",
        "-target|x86_64-linux-musl|-mcpu|x86_64+sse3|-Mroot=src/tool.zig|-z|common-page-size=4",
        "-Mroot=src/tool.zig|--test-filter|src/b.c src/b.c|--test-filter|b|-rcincludes|any",
        "-Mroot=src/gone.zig|-fno-llvm",
    ],
)
def test_0_14_arguments(project: Path, args: str) -> None:
    """Options, their values, and files keep apart, with spaces in them or not."""
    arguments = [*args.split("|"), "--listen=-"]
    assert parse(unquoted(project, *arguments), project) == arguments


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["-Mroot=src/gone away.zig"], "-Mroot=src/gone away.zig"),
        (["-cflags", "--", "src/gone away.c", "-Mroot=src/tool.zig"], "-- src/gone away.c"),
        (["src/b.c", "src/gone", "-Mroot=src/tool.zig"], "src/b.c src/gone"),
    ],
)
def test_0_14_ambiguous(project: Path, args: list[str], named: str) -> None:
    """What cannot be put together is an error that names it and says what to do."""
    with pytest.raises(InputError) as caught:
        parse(unquoted(project, *args, "--listen=-"), project)
    assert f"'{named}'" in str(caught.value)
    assert str(project) in str(caught.value)
    assert "rename what has spaces in it" in str(caught.value)


@pytest.mark.parametrize("line", NO_COMMANDS)
def test_other_lines(line: str) -> None:
    """What else a build prints is no test command, though it may look like one."""
    assert parse(line, Path("/")) is None


@pytest.mark.parametrize("line", [line for line in NO_COMMANDS if "listen" not in line])
def test_other_lines_are_dropped_early(line: str) -> None:
    """Lines without the mark of a compile are not even looked at."""
    assert not is_test_command(line.encode())


@pytest.mark.parametrize("old", [True, False])
def test_response_file(project: Path, old: bool) -> None:
    """Arguments that are too long for a system are in a file."""
    name = f"{project}/.zig-cache/args/0a1b"
    path = Path(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(rb'"-DX=\"a \\ b\"" "-Mroot=src/tool.zig" "" "two' + b"\n" + rb'lines" "--listen=-"')
    line = unquoted(project, f"@{name}") if old else f'"/z ig/zig" test "@{name}"'
    args = ['-DX="a \\ b"', "-Mroot=src/tool.zig", "", "two\nlines", "--listen=-"]
    assert parse(line, project) == args


def test_relative_response_file(tmp_path) -> None:
    """Zig 0.15 and later name that file from where the command ran."""
    path = tmp_path / ".zig-cache" / "args" / "9edd"
    path.parent.mkdir(parents=True)
    path.write_text('"-Odebug" "-Mroot=src/a b.zig" "--build-root" "." "--listen=-"')
    args = ["-Odebug", "-Mroot=src/a b.zig", "--build-root", ".", "--listen=-"]
    for prefix in ("", "info(verbose): "):
        assert parse(f"{prefix}/zig/zig test @.zig-cache/args/9edd", tmp_path) == args


def test_missing_response_file(tmp_path) -> None:
    """Without that file there are no arguments, which is an error with its path."""
    with pytest.raises(InputError, match=r"'/.*/args/gone': No such file"):
        parse(f"/zig/zig test @{tmp_path}/args/gone", tmp_path)
