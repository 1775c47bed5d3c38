"""Finding a Zig compiler and asking what it is."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import ziglang

from fuzzserver.errors import ZigNotFound, ZigProcessFailed, ZigTimeout, ZigUnsupported
from fuzzserver.wire.release import NEWEST
from fuzzserver.zig.installation import Zig, find_zig
from tests.support_zig_children import processes_naming
from tests.support_zig_fake import calls, fake_zig

PACKAGED = Path(ziglang.__file__).parent / "zig"


def test_default_is_the_package(monkeypatch, tmp_path) -> None:
    """Without a path, the compiler of the ziglang package goes before one on PATH."""
    monkeypatch.setenv("PATH", str(fake_zig(tmp_path).path.parent), prepend=os.pathsep)
    assert find_zig() == PACKAGED


def test_path_when_there_is_no_package(monkeypatch, tmp_path) -> None:
    """Without the package, the first ``zig`` on PATH is taken."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    zig = fake_zig(tmp_path)
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{tmp_path}")
    assert find_zig() == zig.path


def test_no_compiler_at_all(monkeypatch) -> None:
    """Without any compiler, the error says how to get one."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ZigNotFound, match=r"^no Zig compiler found; pip install .* --zig PATH$"):
        find_zig()


def test_package_without_its_binary(monkeypatch, tmp_path) -> None:
    """A package that was installed for another platform, without a binary, is passed over."""
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "ziglang", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ZigNotFound):
        find_zig()


def test_path_is_given(tmp_path) -> None:
    """A compiler that is named is taken, and nothing else is looked at."""
    zig = fake_zig(tmp_path)
    assert find_zig(str(zig.path)) == zig.path
    assert calls(zig) == []


def test_relative_path_is_given(monkeypatch, tmp_path) -> None:
    """A relative path holds when the working folder changes later."""
    zig = fake_zig(tmp_path / "bin")
    monkeypatch.chdir(tmp_path)
    assert find_zig("bin/zig") == zig.path


def test_name_is_given(monkeypatch, tmp_path) -> None:
    """A bare name is looked up on PATH."""
    zig = fake_zig(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_zig("zig") == zig.path


def test_missing_path() -> None:
    """A path to nothing is an error with the path in it."""
    with pytest.raises(ZigNotFound, match=r"'/no/such/zig' does not exist"):
        find_zig("/no/such/zig")


def test_not_executable(tmp_path) -> None:
    """A file that cannot be executed is told apart from one that is missing."""
    path = tmp_path / "zig"
    path.write_text("no program")
    with pytest.raises(ZigNotFound, match=f"'{path}' is not executable"):
        find_zig(str(path))


def test_folder(tmp_path) -> None:
    """The folder of a compiler is no compiler."""
    with pytest.raises(ZigNotFound, match=f"'{tmp_path}' is not executable"):
        find_zig(str(tmp_path))


def test_version(zig: Zig) -> None:
    """The version is what ``zig version`` prints, without the line break."""
    printed = subprocess.run([zig.path, "version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert zig.version == printed.strip() == "0.14.1"
    zig.check_supported()


def test_lib_dir(zig: Zig) -> None:
    """The library folder is the one with the standard library."""
    assert zig.lib_dir.is_absolute()
    assert (zig.lib_dir / "std" / "std.zig").is_file()
    assert (zig.lib_dir / "docs" / "wasm" / "Walk.zig").is_file()


def test_relative_lib_dir(tmp_path) -> None:
    """A compiler that answers with a relative path is asked in the root folder, so that it holds."""
    zig = fake_zig(tmp_path, env={"stdout": '{"lib_dir": "usr/lib/zig"}'})
    assert zig.lib_dir == Path("/usr/lib/zig")
    assert [call["cwd"] for call in calls(zig)] == ["/"]


def test_questions_are_asked_once(tmp_path) -> None:
    """Version and library folder are remembered."""
    zig = fake_zig(tmp_path)
    for _ in range(3):
        assert zig.version == "0.14.1"
        assert zig.lib_dir == tmp_path / "lib"
    assert [call["argv"] for call in calls(zig)] == [["version"], ["env"]]


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.14.0", "0.14"),
        ("0.14.2-dev.1+abc", "0.14"),
        ("0.15.2", "0.15"),
        ("0.16.0-dev.3061+9b1eaad13", "0.16"),
        ("0.17.0", "0.17"),
        ("0.17.1", "0.17"),
    ],
)
def test_supported_versions(tmp_path, caplog: pytest.LogCaptureFixture, version: str, release: str) -> None:
    """All of these releases will do, without a word."""
    zig = fake_zig(tmp_path, version={"stdout": version + "\n"})
    zig.check_supported()
    assert zig.release.name == release
    assert caplog.messages == []


@pytest.mark.parametrize("version", ["0.18.0-dev.1+abc", "0.140.0", "1.0.0"])
def test_version_of_the_future(tmp_path, caplog: pytest.LogCaptureFixture, version: str) -> None:
    """What nobody has tried is taken for the newest that is known, and that is said, once."""
    zig = fake_zig(tmp_path, version={"stdout": version + "\n"})
    for _ in range(2):
        zig.check_supported()
    assert zig.release is NEWEST
    (message,) = caplog.messages
    assert message == (
        f"Zig {version} at '{zig.path}' is newer than all that fuzzserver was tried with; "
        "it is taken for Zig 0.17"
    )


@pytest.mark.parametrize("version", ["0.13.0", "0.1.1"])
def test_unsupported_version(tmp_path, version: str) -> None:
    """An older version is refused with its number, its path, and the number that we need."""
    zig = fake_zig(tmp_path, version={"stdout": version + "\n"})
    with pytest.raises(ZigUnsupported) as caught:
        zig.check_supported()
    assert f"Zig {version} at '{zig.path}'" in str(caught.value)
    assert "Zig 0.14 is the oldest that fuzzserver works with" in str(caught.value)


@pytest.mark.parametrize("question", ["version", "env"])
def test_silent_compiler(tmp_path, question: str) -> None:
    """A program that says nothing is no compiler."""
    zig = fake_zig(tmp_path, **{question: {"stdout": "\n"}})
    with pytest.raises(ZigProcessFailed, match="printed nothing; is it a Zig compiler"):
        _ = zig.version, zig.lib_dir


@pytest.mark.parametrize(
    "printed",
    ["0", "14", "0.15", "\xff\xfe\x00junk", "hello\nwor\x1b[31mld", "0.14.1\n0.14.2", f"{'9' * 5000}.1.0"],
)
def test_version_that_is_junk(tmp_path, printed: str) -> None:
    """A program that prints no version, and perhaps not even text, is refused in a line that can be shown."""
    zig = fake_zig(tmp_path, version={"stdout": printed + "\n"})
    with pytest.raises(ZigUnsupported) as caught:
        zig.check_supported()
    shown = printed.replace("\xff\xfe", "\ufffd\ufffd")[:100]
    message = f"'{zig.path} version' printed no version, but {shown!r}; is it a Zig compiler?"
    assert str(caught.value) == message
    assert message.isprintable()


def test_failing_version(tmp_path) -> None:
    """A compiler that fails is reported with its exit code and its words."""
    zig = fake_zig(tmp_path, version={"stderr": "libfoo.so is missing\n", "exit": 127})
    with pytest.raises(ZigProcessFailed, match=r"zig version' exited with code 127: libfoo\.so is missing$"):
        _ = zig.version


def test_failure_is_not_remembered(tmp_path) -> None:
    """A compiler that is repaired works without a restart of the program."""
    zig = fake_zig(tmp_path, version={"exit": 1})
    with pytest.raises(ZigProcessFailed):
        _ = zig.version
    fake_zig(tmp_path)
    assert zig.version == "0.14.1"


@pytest.mark.usefixtures("nothing_left")
def test_hanging_version(tmp_path) -> None:
    """A compiler that does not answer is ended after the timeout."""
    zig = fake_zig(tmp_path, version={"hang": True}, timeout=0.3)
    started = time.monotonic()
    with pytest.raises(ZigTimeout, match=r"zig version' gave no answer in 0\.3 s$"):
        _ = zig.version
    assert time.monotonic() - started < 30
    assert processes_naming(str(tmp_path)) == []


@pytest.mark.usefixtures("nothing_left")
def test_endless_version(tmp_path) -> None:
    """A program that prints without end is ended: 'yes' is no compiler."""
    path = tmp_path / "zig"
    path.symlink_to("/usr/bin/yes")
    with pytest.raises(
        ZigProcessFailed, match=r"'.*zig version' printed more than 1048576 bytes; is it a Zig"
    ):
        _ = Zig(path).version


@pytest.mark.parametrize(
    ("text", "lib_dir"),
    [
        ('.{\n    .lib_dir = "usr/lib/zig",\n    .version = "0.15.2",\n}\n', "/usr/lib/zig"),
        (r'    .lib_dir = "/z\"\xc3\xbc\\x/\xff/lib",', '/z"\u00fc\\x/\udcff/lib'),
    ],
)
def test_lib_dir_in_zon(tmp_path, text: str, lib_dir: str) -> None:
    """Since 0.15, what the compiler says of itself is no JSON any more."""
    assert fake_zig(tmp_path, env={"stdout": text}).lib_dir == Path(lib_dir)


@pytest.mark.parametrize(
    "text",
    [
        "no json", "[]", "{}", ".{}", '{"lib_dir": 3}', '{"lib_dir": null}', '{"lib_dir": "/a\\u0000b"}',
        '{"lib_dir": "\\ud800"}', '.{\n    .lib_dir = "/a\\x00b",\n}\n', '    .lib_dir = "\\N{BULLET}",',
    ],
)  # fmt: skip
def test_env_without_lib_dir(tmp_path, text: str) -> None:
    """An answer without a library folder is quoted in the error."""
    zig = fake_zig(tmp_path, env={"stdout": text})
    with pytest.raises(ZigProcessFailed, match="printed no lib_dir") as caught:
        _ = zig.lib_dir
    assert repr(text) in str(caught.value)


def test_file_that_is_no_program(tmp_path) -> None:
    """A file that is executable by its mode only is an error with the reason."""
    path = tmp_path / "zig"
    path.write_bytes(b"\x7fELF but not really")
    path.chmod(0o755)
    with pytest.raises(ZigNotFound, match=r"cannot start Zig compiler .* Exec format error"):
        _ = Zig(path).version
