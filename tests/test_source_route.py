"""Source files and points of a map, over HTTP."""

import contextlib
import os
import socket
import struct
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.web import map_data
from fuzzserver.wire.abi import FileIndex, PointsHeader, StringIndex, coverage_file_name
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_maps import number_of, show_map
from tests.support_native import C_FILES, c_executable, code_addresses, hand_made_step
from tests.support_web import Answer, request

BOTH = pytest.mark.parametrize("prefix", ["", "/debug"])


@pytest.fixture
def shown(web_server: WebServer, debug_pair: FuzzedPair) -> CoverageMap:
    """The map of the Debug build."""
    return show_map(web_server, debug_pair.step, debug_pair.coverage_id)


def source(web_server: WebServer, coverage_map: CoverageMap, number: int, prefix: str = "") -> Answer:
    """Ask for a file of a map."""
    name = coverage_file_name(coverage_map.coverage_id)
    return request(web_server.port, f"{prefix}/source/{name}/{number}")


@BOTH
def test_source(web_server: WebServer, shown: CoverageMap, project_root: Path, prefix: str) -> None:
    """The bytes of the file, which no browser takes for a page, and when it was changed."""
    path = project_root.parent / "parser.zig"
    answer = source(web_server, shown, number_of(shown, "/src/parser.zig"), prefix)
    assert (answer.status, answer.body) == (200, path.read_bytes())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "max-age=0, must-revalidate"
    modified = parsedate_to_datetime(answer.headers["last-modified"])
    assert modified.timestamp() == int(path.stat().st_mtime)
    assert answer.headers["last-modified"].endswith(" GMT")


def test_every_file_with_points(web_server: WebServer, shown: CoverageMap) -> None:
    """All that the tables name is there on the machine on which it was compiled."""
    files = {file for file in shown.source_locations[::3] if file != 0xFFFFFFFF}
    assert len(files) > 10
    assert {source(web_server, shown, file).status for file in files} == {200}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/source/0000000000000000/0", "there is no coverage map 0000000000000000"),
        ("/points/0000000000000000", "there is no coverage map 0000000000000000"),
        ("/source/ID/100000", "the coverage map names "),
        ("/source/ID/999999999", "the coverage map names "),
        ("/source/ID/9999999999", "not found"),
        ("/source/ID/-1", "not found"),
        ("/source/ID/", "not found"),
        ("/source/ID", "not found"),
        ("/source/ID/0/0", "not found"),
        ("/source/ID/0x0", "not found"),
        ("/source/ID/0?x", "not found"),
        ("/source/ID/../../etc/passwd", "not found"),
        ("/source/ID/%2e%2e/0", "not found"),
        ("/source/etc/passwd", "not found"),
        ("/source//etc/passwd", "not found"),
        ("/source/zz00000000000000/0", "not found"),
        ("/source/00/0", "not found"),
        ("/points/ID/0", "not found"),
        ("/points/", "not found"),
        ("//source/ID/0", "not found"),
        ("/debug/debug/source/ID/0", "not found"),
    ],
)
def test_what_is_not_there(web_server: WebServer, shown: CoverageMap, path: str, why: str) -> None:
    """Numbers of nothing and every other path are not found, in one line."""
    path = path.replace("ID", coverage_file_name(shown.coverage_id))
    answer = request(web_server.port, path)
    assert (answer.status, answer.headers["content-type"]) == (404, "text/plain")
    assert answer.body.decode().startswith(why)
    assert b"\n" not in answer.body


@pytest.fixture
def moving(
    web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[CoverageMap, Path]:
    """A map of which file 0 lies where the test may do what it likes."""
    shown = show_map(web_server, replace(debug_pair.step, key="moving"), debug_pair.coverage_id)
    path = tmp_path / "file \xe4.zig"
    monkeypatch.setattr(shown.coverage, "file_path", lambda index: str(path))
    return shown, path


def test_file_that_is_gone(web_server: WebServer, moving: tuple[CoverageMap, Path]) -> None:
    """The answer names the path: people see that it was built elsewhere."""
    shown, path = moving
    answer = source(web_server, shown, 0)
    assert (answer.status, answer.body.decode()) == (404, f"no such file on this machine: {path}")
    path.write_bytes(b"// \xff\0\r\n")
    assert source(web_server, shown, 0).body == b"// \xff\0\r\n"


def test_no_regular_file(web_server: WebServer, moving: tuple[CoverageMap, Path]) -> None:
    """A pipe, a socket, a device and a folder are refused at once."""
    shown, path = moving
    os.mkfifo(path)
    answer = source(web_server, shown, 0)
    assert (answer.status, answer.body.decode()) == (404, f"cannot read {path}: not a regular file")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        with contextlib.chdir(path.parent):  # The name of a socket has a limited length.
            other.bind(path.name)
        assert source(web_server, shown, 0).status == 404
    path.unlink()
    path.mkdir()
    assert source(web_server, shown, 0).status == 404
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert source(web_server, shown, 0).status == 404


def test_link(web_server: WebServer, moving: tuple[CoverageMap, Path], tmp_path: Path) -> None:
    """One that stays in its folder is the file that it leads to; one that leads elsewhere is refused."""
    shown, path = moving
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "real.zig").write_bytes(b"// real")
    path.symlink_to("sub/real.zig")
    assert source(web_server, shown, 0).body == b"// real"
    secret = tmp_path.with_name(f"{tmp_path.name}-secret")
    secret.mkdir()
    (secret / "x.zig").write_bytes(b"canary")
    for target in (secret / "x.zig", f"../{secret.name}/x.zig", "/etc/passwd"):
        path.unlink()
        path.symlink_to(target)
        answer = source(web_server, shown, 0)
        assert (answer.status, answer.body.decode()) == (
            404,
            f"cannot read {path}: a link that leads out of the folders of sources",
        )
    # Where other sources of the map are, links may lead.
    path.unlink()
    name = shown.coverage.string_at(StringIndex(shown.coverage.directories[0]))
    path.symlink_to(next(each for each in Path(name).iterdir() if each.suffix == ".zig"))
    assert source(web_server, shown, 0).status == 200


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".env", "by its name, it is not for others"),
        (".git/config", "by its name, it is not for others"),
        ("server.pem", "by its name, it is not for others"),
        ("/proc/self/environ", "a file of the system, not of a program"),
        ("/dev/null", "a file of the system, not of a program"),
    ],
)
def test_names_that_are_none_of_sources(
    web_server: WebServer,
    moving: tuple[CoverageMap, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    why: str,
) -> None:
    """Not even debug info can name them."""
    shown, _ = moving
    path = tmp_path / name
    if tmp_path in path.parents:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"canary")
    monkeypatch.setattr(shown.coverage, "file_path", lambda index: str(path))
    answer = source(web_server, shown, 0)
    assert (answer.status, answer.body.decode()) == (404, f"cannot read {path}: {why}")


def test_file_that_is_too_large(
    web_server: WebServer, moving: tuple[CoverageMap, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's browser is filled with a file that no person has written."""
    shown, path = moving
    monkeypatch.setattr(map_data, "MAX_SOURCE", 1 << 20)
    path.write_bytes(bytes(1 << 20))
    assert len(source(web_server, shown, 0).body) == 1 << 20
    path.write_bytes(bytes((1 << 20) + 1))
    answer = source(web_server, shown, 0)
    assert (answer.status, answer.body.decode()) == (404, f"{path} is too large to be shown: more than 1 MiB")


def test_names_that_no_file_can_have(
    web_server: WebServer, moving: tuple[CoverageMap, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the debug info calls a file, there is an answer."""
    shown, _ = moving
    for name in ("/a\0b", "/" + "x" * 300, "/" + "y/" * 5000, "/\udcff", "relative/name.zig", "/dev/null/x"):
        monkeypatch.setattr(shown.coverage, "file_path", lambda index, name=name: name)
        assert source(web_server, shown, 0).status == 404, name


def test_relative_names(
    web_server: WebServer,
    zig: Zig,
    zig_cache: Path,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name relative to the folder of the compiler is found there, as it is for ``sources.tar``."""
    folder = work / "c-programs"
    folder.mkdir(exist_ok=True)
    executable = c_executable(zig, zig_cache, folder, "-gdwarf-4")
    step = hand_made_step(tmp_path, executable, code_addresses(executable))
    shown = show_map(web_server, step, 1)
    number = number_of(shown, "lib/shared.c")
    assert shown.coverage.file_path(FileIndex(number)) == "lib/shared.c"
    # What has the same name where the server runs is another file.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shared.c").write_text("another")
    monkeypatch.chdir(tmp_path)
    assert source(web_server, shown, number).body.decode() == C_FILES["lib/shared.c"]
    for name in ("lib/none.c", "../lib/shared.c", ""):
        monkeypatch.setattr(shown.coverage, "file_path", lambda index, name=name: name)
        answer = source(web_server, shown, number)
        assert (answer.status, answer.body.decode()) == (404, f"no such file on this machine: {name}")


def test_relative_names_of_an_executable_that_is_gone(
    web_server: WebServer, moving: tuple[CoverageMap, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then nobody knows where they were."""
    shown, _ = moving
    monkeypatch.setattr(shown, "facts", replace(shown.facts, path=tmp_path / "gone"))
    monkeypatch.setattr(shown.coverage, "file_path", lambda index: "lib/other.c")
    answer = source(web_server, shown, 0)
    assert (answer.status, answer.body) == (404, b"no such file on this machine: lib/other.c")


@BOTH
def test_points(web_server: WebServer, shown: CoverageMap, debug_pair: FuzzedPair, prefix: str) -> None:
    """Addresses are those of the coverage file; each function has a name; what is covered has a time."""
    name = coverage_file_name(shown.coverage_id)
    answer = request(web_server.port, f"{prefix}/points/{name}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    head = PointsHeader.parse(answer.body)
    count = shown.source_locations_len
    assert head.points_len == count
    size = PointsHeader.LAYOUT.size + 16 * count + 4 * head.functions_len + head.string_bytes_len
    assert len(answer.body) == size
    pcs = struct.unpack_from(f"<{count}Q", answer.body, PointsHeader.LAYOUT.size)
    assert list(pcs) == list(shown.seen_pcs._parts[0].seen_pcs.pc_addrs())
    covered = struct.unpack_from(f"<{count}I", answer.body, PointsHeader.LAYOUT.size + 8 * count)
    bits = shown.read().seen_bits
    assert [bool(time) for time in covered] == [bool(bits[i // 8] >> i % 8 & 1) for i in range(count)]
    assert b"parser" in answer.body[-head.string_bytes_len :]


def test_head_of_source(web_server: WebServer, shown: CoverageMap) -> None:
    """HEAD has the head of GET."""
    path = f"/source/{coverage_file_name(shown.coverage_id)}/{number_of(shown, '/src/parser.zig')}"
    get, head = request(web_server.port, path), request(web_server.port, path, "HEAD")
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
