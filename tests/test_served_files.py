"""What is read from disk and handed out is what was meant: by any path, through any link, of any kind."""

import io
import os
import posixpath
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzserver import CoverageMsg, FuzzRunStep, SourcePath, WebServer, paths
from fuzzserver.corpus import MAX_FILE, MAX_INPUT, Corpus, SharedCorpus
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore, find_finding
from fuzzserver.web import source_files
from fuzzserver.web.source_files import SourceFolders, folder_of
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_time import WAIT, eventually
from tests.support_tree import in_time
from tests.support_web import request

FINDING = Finding(
    id="3f2a00c0ffee",
    kind="panic",
    message="boom",
    target="src/main.zig",
    test="main.test.fuzz",
    first_time=1.0,
    last_time=1.0,
)

CANARY = secrets.token_hex(16).encode()
"""What all files hold that nobody may be sent."""


# ----------------------------------------------------------------------- paths of requests

HIDDEN = (
    "canary.txt",
    "root-secret/canary.js",
    "root/canary.js",
    "root/.env",
    "root/lib/canary.css",
    "root/lib/fuzzer/canary.js",
    "root/lib/fuzzer/web/canary.txt",
    "root/lib/fuzzer/web/Canary.js",
    "root/lib/fuzzer/web/canary.JS",
    "root/lib/fuzzer/web/.js",
    "root/lib/fuzzer/web/main.js.bak",
    "root/lib/fuzzer/web/sub/canary.js",
    "root/src/unlisted.zig",
    "root/findings/canary.txt",
    "root/findings/abcdef.input",
    "root/findings-old/3f2a00c0ffee.input",
    "root/f/test/notes",
    "root/f/test/-1",
    "root/f/other/0",
)
"""Files beside those that are served, with paths from the folder in which all is."""


class Place:
    """A running server and the folder in which its files are, among others."""

    def __init__(self, folder: Path, server: WebServer, coverage_id: int) -> None:
        self.folder = folder
        self.port = server.port
        self.id = coverage_file_name(coverage_id)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, zig: Zig, zig_cache: Path, debug_pair: FuzzedPair
) -> Iterator[Place]:
    """A server that serves one of everything."""
    folder = tmp_path_factory.mktemp("place")
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CANARY)
    root = folder / "root"
    for name in ("index.html", "main.js", "style.css"):
        shutil.copy(paths.lib_dir() / "fuzzer" / "web" / name, root / "lib" / "fuzzer" / "web")
    (root / "src" / "main.zig").write_text("// main\n")
    (root / "f" / "test" / "0").write_text("input")
    (root / "f" / "test" / "1").write_text("another")
    findings = FindingStore(root / "findings")
    findings.add(FINDING, b"input")
    step = FuzzRunStep("src", debug_pair.executable, inputs=(SourcePath(str(root / "src"), "main.zig"),))
    with WebServer(zig=zig, cache_dir=zig_cache, lib_dir=root / "lib", fuzz_run_steps=(step,)) as server:
        server.set_findings(findings)
        server.add_corpus(Corpus(root / "f" / "test", "src/main.zig", "test"))
        server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        eventually(lambda: server.coverage_files.get(debug_pair.coverage_id), "there is no map")
        yield Place(folder, server, debug_pair.coverage_id)


class Client:
    """Asks for one thing after the other, on the same connection for as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._file: io.BufferedRWPair | None = None

    def get(self, target: bytes) -> tuple[int, bytes]:
        """Status, and all that was received. ConnectionError if there is no answer on a new connection."""
        if self._file is not None:
            try:
                return self._ask(target)
            except ConnectionError:
                self.close()  # It has waited too long for us.
        with socket.create_connection(("127.0.0.1", self._port), timeout=WAIT) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._file = connection.makefile("rwb")
        return self._ask(target)

    def _ask(self, target: bytes) -> tuple[int, bytes]:
        assert self._file is not None
        self._file.write(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (target, self._port))
        self._file.flush()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                raise ConnectionError
            head += line
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = b""
        if b"transfer-encoding" in fields:
            while size := int(self._file.readline(), 16):
                body += self._file.read(size + 2)
            self._file.readline()
        elif b"content-length" in fields:
            body = self._file.read(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head.split(b" ", 2)[1]), head + body

    def close(self) -> None:
        """Leave."""
        if self._file is not None:
            self._file.close()
            self._file = None


def naive_file(folder: Path, target: bytes) -> bytes:
    """What a server would send that takes a path for the name of a file, with one of the usual faults."""
    for times in range(3):
        path = target.partition(b"?")[0].partition(b"#")[0]
        for _ in range(times):
            path = unquote_to_bytes(path)
        name = path.replace(b"\\", b"/").partition(b"\0")[0].rstrip(b"/")
        for within in ("root/lib/fuzzer/web", "root/src", "root/findings", "root/f/test", ""):
            for cut in (name, name.partition(b"/@fs")[2], b"/".join(name.split(b"/")[3:])):
                found = posixpath.normpath(os.fsencode(folder / within) + b"/" + cut)
                for each in (found, cut):
                    if os.path.isfile(each) and os.path.getsize(each) == len(CANARY):
                        return Path(os.fsdecode(each)).read_bytes()
    return b""


GOOD = {
    "/": 200,
    "/debug/": 200,
    "/main.js": 200,
    "/style.css": 200,
    "/debug/style.css": 200,
    "/sources.tar": 200,
    "/targets.json": 200,
    "/findings.json": 200,
    "/findings/3f2a00c0ffee.json": 200,
    "/findings/3f2a00c0ffee.input": 200,
    "/corpus.json": 200,
    "/corpus/0.tar": 200,
    "/corpus/0/0": 200,
    "/points/ID": 200,
    "/source/ID/0": 200,
}
"""What there is. None of it has the canary in it."""

VECTORS = (
    # As Vite tests its own server: a fragment, a dot at the end, a backslash, a prefix that means a file.
    "/main.js#/../../canary.js",
    "/main.js#/../canary.js",
    "/@fs/ROOT/lib/main.js#/../../../canary.txt",
    "/canary.txt/.",
    "/.js/.",
    "/.env\\",
    "/@fs/ROOT/.env",
    "/@fs/ROOT/.env\\",
    "/@fs/ROOT/.env/.",
    "/@fs//ROOT/.env",
    "/@fs/ROOT/.env?raw",
    "/@fs/ROOT/.env?raw??",
    "/@fs/ROOT/.env?import&raw",
    "/@fs/ROOT/.env?.svg?.wasm?init",
    "/@fs/ROOT/node_modules/.vite/deps/../../../.env",
    "/@fs/ROOT/node_modules/.vite/deps/..\\..\\..\\.env",
    "/../canary.js",
    # Others.
    "/../../../../../../canary.txt",
    "/..%2fcanary.js",
    "/%2e%2e/canary.js",
    "/%2e%2e%2fcanary.js",
    "/%252e%252e%252fcanary.js",
    "/..\\canary.js",
    "/..%5ccanary.js",
    "/....//canary.js",
    "/..;/canary.js",
    "/%c0%ae%c0%ae/canary.js",
    "/%u002e%u002e/canary.js",
    "/\u2025/canary.js",
    "/.\u0338/canary.js",
    "/sub/canary.js",
    "/sub%2fcanary.js",
    "//sub/canary.js",
    "/./canary.txt",
    "/.//canary.txt",
    "/canary.txt%00.js",
    "/canary.txt\0.js",
    "/canary.txt?.js",
    "/canary.txt;.js",
    "/canary.txt/x.js",
    "/main.js/../canary.txt",
    "/main.js.bak",
    "/Canary.js",
    "/canary.JS",
    "/canary.j\u017f",
    "/.js",
    "ROOT/canary.js",
    "/ROOT/canary.js",
    "file://ROOT/canary.js",
    "http://127.0.0.1:PORT/../canary.js",
    "http://127.0.0.1:PORT//ROOT/canary.js",
    "/source/ID/../../unlisted.zig",
    "/source/ID/0/../../unlisted.zig",
    "/source/ID/ROOT/canary.js",
    "/source/ID/-1",
    "/source/ID/0x0",
    "/source/ID/\u0661",
    "/source/../0",
    "/findings/canary.txt",
    "/findings/abcdef.input",
    "/findings/../findings-old/3f2a00c0ffee.input",
    "/findings/3f2a00c0ffee.input/../canary.txt",
    "/findings/..%2ffindings-old%2f3f2a00c0ffee.input",
    "/findings/.input",
    "/corpus/0/notes",
    "/corpus/0/-1",
    "/corpus/0/../../other/0",
    "/corpus/0/..%2f..%2fother%2f0",
    "/corpus/-1/0",
    "/corpus/1/0",
    "/corpus/0/00",
    "/corpus/0/\u0660",
    "/corpus/../f/other/0.tar",
)


def target_of(place: Place, text: str) -> bytes:
    """The request target that a pattern stands for."""
    text = text.replace("ID", place.id).replace("PORT", str(place.port))
    return text.replace("ROOT", f"{place.folder}/root").encode()


def test_what_there_is_and_what_there_is_not(place: Place) -> None:
    """The server answers with what it has, and finds nothing by any of the ways that others were fooled."""
    client = Client(place.port)
    for path, status in GOOD.items():
        got, answer = client.get(target_of(place, path))
        assert (got, CANARY in answer) == (status, False), path
    for vector in VECTORS:
        got, answer = client.get(target_of(place, vector))
        assert 400 <= got < 500 or vector == "/corpus/0/00", (vector, got)
        assert CANARY not in answer, vector
    client.close()


UP = (
    "..",
    "..",
    "%2e%2e",
    ".%2E",
    "%252e%252e",
    "..;",
    ".",
    "",
    "...",
    "%c0%ae%c0%ae",
    "..%00",
    "\u2024\u2024",
)
SLASH = ("/", "/", "/", "%2f", "%2F", "\\", "%5c", "%252f", "//", "/./", "\u2215")
BEGINNING = (
    *(
        "/",
        "/",
        "//",
        "",
        "/debug/",
        "/@fs/",
        "/source/ID/",
        "/source/",
        "/points/",
        "/findings/",
        "/corpus/0/",
    ),
    *("/corpus/", "/main.js/", "/sources.tar/", "file://", "http://127.0.0.1:PORT/", "/static/"),
)
ENDING = (
    "",
    "",
    "",
    "",
    "/",
    "/.",
    "?raw",
    "??",
    "#",
    "#/x.js",
    "%00.js",
    "%23",
    ".js",
    "\\",
    ";.css",
    "~",
    "%20",
)

TARGETS = st.builds(
    lambda beginning, ups, name, ending, noise: (
        beginning + "".join(map("".join, ups)) + name + ending + noise
    ),
    st.sampled_from(BEGINNING),
    st.lists(st.sampled_from([up + slash for up in UP for slash in SLASH]), max_size=6),
    st.sampled_from(
        (
            *(part for name in HIDDEN for part in (name, posixpath.basename(name), f"ROOT/../{name}")),
            *(
                "canary.txt",
                "root-secret/canary.js",
                "ROOT-secret/canary.js",
                "CANARY.TXT",
                "etc/passwd",
                "",
                "0",
            ),
        )
    ),
    st.sampled_from(ENDING),
    st.just("") | st.text(st.characters(exclude_characters=" \r\n", exclude_categories=["Cs"]), max_size=2),
)


def test_thousands_of_paths(place: Place, rounds: Callable[[int, int], int]) -> None:
    """None of them brings a byte of what is not served. A server that looks for files would be fooled."""
    client = Client(place.port)
    asked = fooled = found = 0
    enough = rounds(5000, 1000)

    @settings(
        max_examples=enough,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(TARGETS)
    def ask(text: str) -> None:
        nonlocal asked, fooled, found
        target = target_of(place, text) or b"/"
        status, answer = client.get(target)
        assert CANARY not in answer
        assert b"root:x:0:0" not in answer
        assert status == 200 or 400 <= status < 500, answer
        asked += 1
        fooled += CANARY in naive_file(place.folder, target)
        found += status == 200

    ask()
    client.close()
    assert asked >= enough
    assert fooled > enough / 10
    assert found < enough / 10  # Some are plain "/" in the end.


# ----------------------------------------------------------------------- sources


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a file that nobody may be sent."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "a.zig").write_bytes(CANARY)
    return folder


def content(folders: SourceFolders, path: Path | str) -> bytes:
    """What is handed out."""
    with os.fdopen(in_time(lambda: folders.open(str(path))), "rb") as file:
        return file.read()


def refusal(folders: SourceFolders, path: Path | str) -> str:
    """Why nothing is handed out."""
    with pytest.raises(OSError) as error:
        in_time(lambda: folders.open(str(path)))
    return str(error.value.strerror)


LEADS_OUT = "a link that leads out of the folders of sources"


def test_folder_behind_a_link(tmp_path: Path) -> None:
    """Where the folder of sources really is makes no difference."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.zig").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real")
    for folder in (tmp_path / "real", tmp_path / "link"):
        for name in ("link/a.zig", "real/a.zig", "link/../real/a.zig"):
            assert content(SourceFolders([str(folder)]), tmp_path / name) == b"a"


def test_link_to_another_folder_of_sources(tmp_path: Path, outside: Path) -> None:
    """A link may lead to where other sources are."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.zig").symlink_to("../outside/a.zig")
    folders = [str(tmp_path / "root")]
    assert refusal(SourceFolders(folders), tmp_path / "root" / "a.zig") == LEADS_OUT
    assert content(SourceFolders([*folders, str(outside)]), tmp_path / "root" / "a.zig") == CANARY


def test_folder_in_a_folder_is_no_way_out(tmp_path: Path, outside: Path) -> None:
    """Debug info names each folder; one of them may become a link."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "sub").symlink_to(outside)
    folders = SourceFolders(
        [str(tmp_path / "root" / "sub"), str(tmp_path / "root"), f"{tmp_path}/root/./sub/"]
    )
    assert refusal(folders, tmp_path / "root" / "sub" / "a.zig") == LEADS_OUT


def test_folder_with_the_same_beginning(tmp_path: Path) -> None:
    """``root-secret`` is not in ``root``."""
    for name in ("root", "root-secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.zig").write_bytes(b"a")
    folders = SourceFolders([str(tmp_path / "root")])
    assert content(folders, tmp_path / "root" / "a.zig") == b"a"
    assert refusal(folders, tmp_path / "root-secret" / "a.zig") == LEADS_OUT
    assert refusal(folders, tmp_path / "root" / ".." / "root-secret" / "a.zig") == LEADS_OUT


def test_odd_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of all, two slashes, nothing, a NUL, and a working folder that is gone."""
    (tmp_path / "a.zig").write_bytes(b"a")
    for folder in ("/", "//", f"/{tmp_path}", f"{tmp_path}/"):
        assert content(SourceFolders([folder]), f"{tmp_path}/a.zig") == b"a"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert content(SourceFolders(["relative", "", "a\0b", str(tmp_path)]), f"{tmp_path}/a.zig") == b"a"
    assert refusal(SourceFolders(["relative", ""]), "a.zig") == "No such file or directory"
    assert refusal(SourceFolders([]), f"{tmp_path}/a.zig") == LEADS_OUT
    with pytest.raises(ValueError, match="null byte"):
        SourceFolders([str(tmp_path)]).open(f"{tmp_path}/a\0.zig")


def test_folder_that_a_source_belongs_to() -> None:
    """It is the root, unless the path leads elsewhere by its own words."""
    assert folder_of(SourcePath("/root", "a/b.zig")) == "/root"
    assert folder_of(SourcePath("lib", "b.c", "/home")) == "/home/lib"
    assert folder_of(SourcePath("/root", "../beside/b.zig")) == "/root/../beside"
    assert folder_of(SourcePath("/root", "/else/b.zig")) == "/else"
    assert folder_of(SourcePath("/root", "a..b/..c")) == "/root"


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".ENV", ".env.local", ".npmrc", ".zig", "sub/.hidden"),
        *(".git/config", "a/.git/objects/x", ".ssh/config", ".gnupg/x", ".aws/credentials"),
        *(
            "x.pem",
            "x.PEM",
            "sub/tls.key",
            "x.p12",
            "x.pfx",
            "id_rsa",
            "ID_RSA",
            "id_ed25519.pub",
            "id_ecdsa-old",
        ),
    ],
)
def test_secret_names(tmp_path: Path, name: str) -> None:
    """Whoever names them, and by whatever link."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CANARY)
    (tmp_path / "link.zig").symlink_to(name)
    folders = SourceFolders([str(tmp_path)])
    for each in (path, tmp_path / "link.zig"):
        assert refusal(folders, each) == "by its name, it is not for others"


@pytest.mark.parametrize(
    "name",
    ["a.zig", "x.env", ".cache/x.zig", ".git.zig/b.zig", "key", "pem.zig", "my_id_rsa.zig", "x (deleted)"],
)
def test_names_that_are_not_secret(tmp_path: Path, name: str) -> None:
    """A cache or an installation of Zig may be in a folder whose name begins with a dot."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a")
    assert content(SourceFolders([str(tmp_path)]), path) == b"a"


@pytest.mark.parametrize(
    "name", ["/proc/self/environ", "/proc/version", "/sys/kernel/notes", "/dev/mqueue/x"]
)
def test_files_of_the_system(tmp_path: Path, name: str) -> None:
    """They look like regular files, and are not read even if debug info names them."""
    assert refusal(SourceFolders(["/"]), name) == "a file of the system, not of a program"
    (tmp_path / "proc").symlink_to("/proc/self")
    assert (
        refusal(SourceFolders(["/"]), tmp_path / "proc" / "environ")
        == "a file of the system, not of a program"
    )
    assert refusal(SourceFolders(["/"]), "/dev/shm/none/a.zig") == "No such file or directory"


@pytest.mark.parametrize("moment", ["fstat", "readlink"])
def test_what_was_looked_at_is_what_is_opened(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What takes the place of a file between two looks is never read."""
    path = tmp_path / "root" / "a.zig"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    folders = SourceFolders([str(path.parent)])
    real = getattr(os, moment)

    def swap(*args: object) -> object:
        path.unlink()
        path.symlink_to(outside / "a.zig")
        monkeypatch.setattr(source_files.os, moment, real)
        return real(*args)

    monkeypatch.setattr(source_files.os, moment, swap)
    assert content(folders, path) == b"mine"
    assert refusal(folders, path) == LEADS_OUT


def test_lease_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Who holds a lease is told that somebody wants to read, and has 45 seconds to answer."""
    path = tmp_path / "a.zig"
    path.write_bytes(b"a")
    holder = "import fcntl, os, signal, sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n" + (
        f"fd = os.open({str(path)!r}, os.O_RDWR)\nfcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert refusal(SourceFolders([str(tmp_path)]), path) == "Resource temporarily unavailable"
        child.communicate()
    assert content(SourceFolders([str(tmp_path)]), path) == b"a"


def test_no_descriptor_is_left(tmp_path: Path, outside: Path, nothing_left: None) -> None:
    """Whatever is refused, and why."""
    (tmp_path / "link").symlink_to(outside / "a.zig")
    os.mkfifo(tmp_path / "pipe")
    folders = SourceFolders([str(tmp_path / "none")])
    for name in ("link", "pipe", "outside", "none", "outside/a.zig"):
        with pytest.raises(OSError):
            folders.open(str(tmp_path / name))


# ----------------------------------------------------------------------- findings


@pytest.fixture
def store(tmp_path: Path) -> FindingStore:
    """One finding."""
    store = FindingStore(tmp_path / "findings")
    store.add(FINDING, b"input")
    return store


def spoil(path: Path, kind: str, outside: Path) -> None:
    """Put something in the place of a file that is none."""
    path.unlink(missing_ok=True)
    match kind:
        case "link":
            path.symlink_to(outside / "a.zig")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)


SPOILT = pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device", "huge"])


@SPOILT
def test_finding_whose_input_is_no_file(
    web_server: WebServer, store: FindingStore, outside: Path, kind: str
) -> None:
    """The answer says so, at once."""
    web_server.set_findings(store)
    assert request(web_server.port, f"/findings/{FINDING.id}.input").body == b"input"
    spoil(store.input_path(FINDING.id), kind, outside)
    answer = request(web_server.port, f"/findings/{FINDING.id}.input")
    assert answer.status == 500
    assert answer.body.startswith(b"cannot read input '")
    details = request(web_server.port, f"/findings/{FINDING.id}.json")
    assert details.status == 200
    assert CANARY not in answer.body + details.body


@SPOILT
def test_finding_that_is_no_file(store: FindingStore, outside: Path, kind: str) -> None:
    """What cannot be read is not shown, and keeps no server from starting."""
    spoil(store.folder / f"{FINDING.id}.json", kind, outside)
    assert in_time(lambda: FindingStore(store.folder)).all() == []


def test_finding_that_the_user_has_linked(store: FindingStore, tmp_path: Path) -> None:
    """Whoever names a link on the command line means what it leads to."""
    (tmp_path / "link.json").symlink_to(store.folder / f"{FINDING.id}.json")
    found, finding = find_finding(str(tmp_path / "link.json"), [])
    assert (finding, found.input(finding.id)) == (FINDING, b"input")


# ----------------------------------------------------------------------- corpora


@pytest.fixture
def corpus(web_server: WebServer, tmp_path: Path) -> Corpus:
    """Two inputs."""
    folder = tmp_path / "f" / "test"
    folder.mkdir(parents=True)
    (folder / "0").write_bytes(b"zero")
    (folder / "2").write_bytes(b"two")
    corpus = Corpus(folder, "src/main.zig", "test")
    web_server.add_corpus(corpus)
    return corpus


@SPOILT
@pytest.mark.parametrize("number", [1, 7])
def test_input_that_is_no_file(
    web_server: WebServer, corpus: Corpus, outside: Path, kind: str, number: int
) -> None:
    """It is none of the inputs, and those that are can be had."""
    spoil(corpus.folder / str(number), kind, outside)
    assert [each.number for each in in_time(corpus.inputs)] == [0, 2]
    assert request(web_server.port, f"/corpus/0/{number}").status == 404
    archive = request(web_server.port, "/corpus/0.tar").body
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["0", "2"]
    answers = [request(web_server.port, path).body for path in ("/corpus.json", "/corpus/0/0", "/corpus/0/2")]
    assert answers[1:] == [b"zero", b"two"]
    assert CANARY not in b"".join([archive, *answers])


def test_corpus_is_not_written_through_a_link(corpus: Corpus, outside: Path) -> None:
    """To keep inputs in order is no way to change another file."""
    for number in (1, 3, 4):
        spoil(corpus.folder / str(number), "link", outside)
    corpus.tidy()
    assert corpus.add([b"new", b"newer"], 0) == 2
    assert (outside / "a.zig").read_bytes() == CANARY
    assert [corpus.input(each.number) for each in corpus.inputs()] == [b"zero", b"two", b"new", b"newer"]


def test_input_that_changes_after_it_was_listed(corpus: Corpus, outside: Path) -> None:
    """What it has become is looked at again."""
    for kind in ("link", "pipe", "huge"):
        spoil(corpus.folder / "2", kind, outside)
        with pytest.raises(InputError, match="the corpus of 'test' has no input 2: "):
            in_time(lambda: corpus.input(2))


def test_size_of_inputs(corpus: Corpus) -> None:
    """What is too long to be an input is none."""
    for size, numbers in ((MAX_FILE - 1, [0, 1, 2]), (MAX_FILE + 1, [0, 2])):
        with (corpus.folder / "1").open("wb") as file:
            file.truncate(size)
        assert [each.number for each in corpus.inputs()] == numbers


def test_folder_of_the_users(corpus: Corpus, outside: Path, tmp_path: Path) -> None:
    """His links lead where he likes; of a file too long, the beginning is taken; a pipe is no input."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "link").symlink_to(outside / "a.zig")
    os.mkfifo(folder / "pipe")
    with (folder / "long").open("wb") as file:
        file.write(b"long")
        file.truncate(1 << 40)
    in_time(lambda: SharedCorpus(folder, "test").give(corpus))
    given = [path.read_bytes() for path in corpus.folder.iterdir()]
    assert sorted(given) == sorted([b"zero", b"two", CANARY, b"long".ljust(MAX_INPUT, b"\0")])
