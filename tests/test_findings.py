"""Findings on disk: nothing that was noted is lost, whatever happens."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore, find_finding, write_whole, zig_string_literal

FINDING = Finding(
    id="0123456789ab",
    kind="panic",
    message="boom",
    target="src/main.zig",
    test="main.test.fuzz",
    first_time=100.0,
    last_time=100.0,
    n_runs=51,
    stack="main.zig:1:2: 0x1 in f (test)",
    build={"args": ["-Mroot=x"]},
)


def test_round_trip(tmp_path: Path) -> None:
    """What one store notes, the next one reads."""
    FindingStore(tmp_path / "a" / "b").add(FINDING, b"\0input\xff")
    store = FindingStore(tmp_path / "a" / "b")
    assert store.all() == [FINDING]
    assert store.get(FINDING.id) == FINDING
    assert store.input(FINDING.id) == b"\0input\xff"
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["0123456789ab.input", "0123456789ab.json"]


def test_found_again(tmp_path: Path) -> None:
    """The same finding is counted; what was first and what was learnt stays."""
    changes = []
    store = FindingStore(tmp_path, lambda: changes.append(1))
    store.add(FINDING, b"first")
    store.update(FINDING.id, lambda each: replace(each, reproduces=True))
    again = store.add(replace(FINDING, first_time=200.0, last_time=200.0, n_runs=99), b"second")
    assert (again.count, again.first_time, again.last_time, again.n_runs) == (2, 100.0, 200.0, 51)
    assert again.reproduces is True
    assert store.input(FINDING.id) == b"first"
    assert FindingStore(tmp_path).all() == [again]
    assert len(changes) == 3


def test_update_replaces_the_input(tmp_path: Path) -> None:
    """A better input takes the place of the first."""
    store = FindingStore(tmp_path)
    store.add(FINDING, b"long input")
    store.update(FINDING.id, lambda each: replace(each, exact=True), b"long")
    assert FindingStore(tmp_path).input(FINDING.id) == b"long"
    assert FindingStore(tmp_path).all()[0].exact


def test_oldest_first(tmp_path: Path) -> None:
    """Findings come in the order of their first time."""
    store = FindingStore(tmp_path)
    store.add(replace(FINDING, id="bb", first_time=2.0), b"")
    store.add(replace(FINDING, id="a", first_time=3.0), b"")
    store.add(replace(FINDING, id="c", first_time=1.0), b"")
    assert [finding.id for finding in store.all()] == ["c", "bb", "a"]


DAMAGED = {
    "empty": "",
    "no JSON": "{",
    "no object": "[]",
    "fields missing": "{}",
    "number for text": json.dumps(FINDING.to_json() | {"kind": 1}),
    "text for number": json.dumps(FINDING.to_json() | {"count": "many"}),
    "build no object": json.dumps(FINDING.to_json() | {"build": 3}),
    "deep": "[" * 100_000,
    "no number": json.dumps(FINDING.to_json() | {"first_time": float("nan")}),
    "reproduces no yes or no": json.dumps(FINDING.to_json() | {"reproduces": "x"}),
    "stack no text": json.dumps(FINDING.to_json() | {"stack": []}),
    "id of another": json.dumps(FINDING.to_json()),
    "argv no list": json.dumps(FINDING.to_json() | {"argv": 3}),
    "place no text": json.dumps(FINDING.to_json() | {"place": None}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_told_and_kept(tmp_path: Path, caplog, text: str) -> None:
    """A file that cannot be read is named in the log, left alone, and costs the others nothing."""
    FindingStore(tmp_path).add(FINDING, b"x")
    (tmp_path / "ffff.json").write_text(text)
    assert FindingStore(tmp_path).all() == [FINDING]
    assert [record.message for record in caplog.records if "ffff.json' is damaged" in record.message]
    assert (tmp_path / "ffff.json").read_text() == text


def test_unknown_fields_do_no_harm(tmp_path: Path) -> None:
    """A finding of a later version can be read."""
    (tmp_path / f"{FINDING.id}.json").write_text(json.dumps(FINDING.to_json() | {"later": 1}))
    assert FindingStore(tmp_path).all() == [FINDING]


def test_findings_of_earlier_versions(tmp_path: Path) -> None:
    """One that was kept when nobody noted the place is read without it, and gets it when found again."""
    old = {name: value for name, value in FINDING.to_json().items() if name != "place"}
    (tmp_path / f"{FINDING.id}.json").write_text(json.dumps(old))
    store = FindingStore(tmp_path)
    assert store.all() == [FINDING]
    assert store.all()[0].summary()["place"] == ""
    assert store.add(replace(FINDING, place="main.zig:1:2"), b"x").place == "main.zig:1:2"
    assert store.add(replace(FINDING, place="main.zig:3:4"), b"x").place == "main.zig:1:2"
    assert FindingStore(tmp_path).all()[0].place == "main.zig:1:2"


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the path; the finding is kept in memory."""
    (tmp_path / "file").write_text("")
    store = FindingStore(tmp_path / "file" / "findings")
    with pytest.raises(InputError, match=r"cannot write '.*0123456789ab.input': "):
        store.add(FINDING, b"x")
    assert store.all() == [FINDING]
    details = store.details(FINDING.id)
    assert details is not None and details["input_literal"] == '"x"'


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    """With the next change of the finding, its input is saved as well."""
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    store = FindingStore(obstacle / "findings")
    with pytest.raises(InputError):
        store.add(FINDING, b"x")
    obstacle.unlink()
    store.update(FINDING.id, lambda each: replace(each, reproduces=True))
    again = FindingStore(obstacle / "findings")
    assert again.input(FINDING.id) == b"x"
    assert again.all() == [replace(FINDING, reproduces=True)]


def test_what_another_process_learnt_is_kept(tmp_path: Path) -> None:
    """A finding that was minimized while a session runs stays so when the session finds it again."""
    session = FindingStore(tmp_path)
    session.add(FINDING, b"long")
    FindingStore(tmp_path).update(FINDING.id, lambda each: replace(each, minimized_size=1), b"l")
    again = session.add(FINDING, b"long")
    assert (again.minimized_size, again.count) == (1, 2)
    assert session.input(FINDING.id) == b"l"


WRITER = """
import sys
from pathlib import Path
from dataclasses import replace
from fuzzserver.findings import FindingStore
from tests.test_findings import FINDING
store = FindingStore(Path(sys.argv[1]))
for number in range(10**9):
    finding = store.add(replace(FINDING, id=f"{number % 7:04x}"), bytes(100) * (number % 5))
    print(finding.id, finding.count, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 3, 10, 30, 77])
def test_kill_at_any_moment(tmp_path: Path, lines: int) -> None:
    """What was told before a SIGKILL is on disk, with its input, and no file is half written."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
    store = FindingStore(tmp_path)
    for finding_id, count in told:
        finding = store.get(finding_id.decode())
        assert finding is not None
        assert finding.count >= int(count)
        assert len(store.input(finding.id)) % 100 == 0
    assert len(store.all()) == len(list(tmp_path.glob("*.json")))
    (tmp_path / ".00ab.json.x1_y").write_text("{")
    (tmp_path / ".git").mkdir()
    store.remove_unfinished()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".git"]
    assert len(store.all()) == len(list(tmp_path.glob("*.json")))


def test_find_finding(tmp_path: Path) -> None:
    """By id, by the beginning of an id, by path; else the error says what there is."""
    store = FindingStore(tmp_path)
    store.add(FINDING, b"x")
    store.add(replace(FINDING, id="0199"), b"y")
    assert find_finding("0123", [tmp_path])[1] == FINDING
    assert find_finding(str(tmp_path / "0199.json"), [])[1].id == "0199"
    assert find_finding(str(tmp_path / "0199.input"), [])[1].id == "0199"
    with pytest.raises(InputError, match="'01' stands for 2 findings: 0123456789ab, 0199"):
        find_finding("01", [tmp_path])
    for name in ("7", "", str(tmp_path)):
        with pytest.raises(InputError, match=f"no finding '{name}' in"):
            find_finding(name, [tmp_path])
    (tmp_path / "7.json").write_text("{}")
    with pytest.raises(InputError, match=r"finding '.*7.json' is damaged: something is missing"):
        find_finding(str(tmp_path / "7.json"), [])


def test_details(tmp_path: Path) -> None:
    """All that people want to know; whether the input's length is known is said."""
    store = FindingStore(tmp_path)
    store.add(FINDING, b'say "x"\n')
    details = store.details(FINDING.id)
    assert details is not None
    assert details["input_literal"] == r'"say \"x\"\n"'
    assert details["command"] == "fuzzserver repro 0123456789ab"
    assert "does not store how long" in details["input_note"]
    store.update(FINDING.id, lambda each: replace(each, exact=True))
    assert store.details(FINDING.id)["input_note"] == ""
    store.update(FINDING.id, lambda each: replace(each, form="smith"))
    assert "std.testing.Smith" in store.details(FINDING.id)["input_note"]
    assert FindingStore(tmp_path).get(FINDING.id).form == "smith"
    with pytest.raises(InputError, match="'form' has a value that it cannot have"):
        Finding.from_json({**json.loads(json.dumps(FINDING.to_json())), "form": "letters"})
    assert store.details("nothing") is None


@pytest.mark.parametrize(
    ("data", "literal"),
    [
        (b"", '""'),
        (b"canyoufindme", '"canyoufindme"'),
        (b'\\"\n\r\t\0\x7f\xff', r'"\\\"\n\r\t\x00\x7f\xff"'),
        (b"a" * 4100, '"' + "a" * 4096 + '" // and 4 bytes more'),
    ],
)
def test_zig_string_literal(data: bytes, literal: str) -> None:
    """Bytes are shown as Zig writes them."""
    assert zig_string_literal(data) == literal


def test_zig_reads_the_literal(tmp_path: Path, zig) -> None:
    """The compiler takes the literal for the very bytes."""
    data = bytes(range(256))
    source = tmp_path / "literal.zig"
    numbers = ", ".join(map(str, data))
    source.write_text(
        'const std = @import("std");\n'
        "comptime {\n"
        "    @setEvalBranchQuota(9999);\n"
        f"    std.debug.assert(std.mem.eql(u8, {zig_string_literal(data)}, &[_]u8{{ {numbers} }}));\n"
        "}\n"
    )
    argv = [str(zig.path), "build-obj", "-fno-emit-bin", str(source), "--cache-dir", str(tmp_path / "c")]
    done = subprocess.run(argv, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_write_whole_leaves_no_temporary_file(tmp_path: Path, monkeypatch) -> None:
    """When the rename fails, the old content stays and nothing else."""
    path = tmp_path / "file"
    write_whole(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"cannot write '.*file': No space left on device"):
        write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"
