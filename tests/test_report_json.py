"""The JSON form and its schema: what is written fits and is read again as it was, all else is refused."""

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding
from fuzzserver.observer import Observer
from fuzzserver.report import json_form
from fuzzserver.report.formats import FORMATS, report_bytes
from fuzzserver.report.json_form import read_report, report_from_json, report_json
from fuzzserver.report.merge import merge
from fuzzserver.report.model import (
    MAX_COUNT,
    MAX_SECONDS,
    FindingReport,
    HistoryPoint,
    Report,
    TestReport,
    Verdict,
)
from tests.projects import FuzzedPair
from tests.support_any_report import TARGETS, report_of
from tests.support_report import APP_ROWS, MAIN, sample_report, sample_target

SCHEMA = json.loads(Path(json_form.__file__).with_name("report.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)

WAIT = 120.0

Place = tuple[str | int, ...]
"""The way to a value in JSON."""

WRONG = (
    None,
    True,
    False,
    -1,
    -2,
    1 << 53,
    (1 << 53) + 1,
    1 << 64,
    10**400,
    1.5,
    1e15,
    -1e15,
    1.7e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
)
"""Values of all types; each field must refuse some of them."""

TEXTS = st.binary(max_size=6).map(lambda data: data.decode("utf-8", "surrogateescape"))
NUMBERS = st.integers(0, MAX_COUNT)
TIMES = st.floats(-MAX_SECONDS, MAX_SECONDS)
FINDINGS = st.builds(
    Finding,
    id=st.text("0123456789abcdef", min_size=1, max_size=64),
    kind=TEXTS,
    message=TEXTS,
    target=TEXTS,
    test=TEXTS,
    first_time=TIMES,
    last_time=TIMES,
    count=NUMBERS,
    n_runs=NUMBERS,
    stack=TEXTS,
    stderr=TEXTS,
    reproduces=st.none() | st.booleans(),
    exact=st.booleans(),
    minimized_size=st.none() | NUMBERS,
    argv=st.lists(TEXTS, max_size=3).map(tuple),
    place=TEXTS,
)
REPORTS = st.builds(
    lambda report, texts, numbers, maybe, tests, history, **fields: replace(
        report,
        targets=tuple(
            replace(
                target,
                key=texts[0],
                text=texts[1],
                id=maybe and texts[2],
                executable=maybe,
                zig_version=maybe,
                runs=numbers[0],
                unique_runs=numbers[1],
                tests=tuple(tests),
                history=tuple(history),
                oddities=tuple(texts),
            )
            for target in report.targets
        ),
        **fields,
    ),
    TARGETS.map(report_of),
    st.tuples(TEXTS, TEXTS, TEXTS),
    st.tuples(NUMBERS, NUMBERS),
    st.none() | TEXTS,
    st.lists(st.builds(TestReport, TEXTS, TEXTS, TEXTS, st.none() | NUMBERS, NUMBERS), max_size=3),
    st.lists(st.builds(HistoryPoint, TIMES, NUMBERS, NUMBERS, NUMBERS), max_size=3),
    time=TIMES,
    started=st.none() | TIMES,
    seconds=st.none() | TIMES,
    generator=TEXTS,
    verdict=st.none()
    | st.builds(Verdict, st.integers(0, 255), TEXTS, st.lists(TEXTS, max_size=2).map(tuple)),
    findings=st.lists(st.builds(FindingReport, FINDINGS, st.binary(max_size=8)), max_size=2).map(tuple),
)


def as_json(report: Report) -> Any:
    """What a reader of the written text has."""
    return json.loads(report_bytes("json", report))


def small_report() -> Report:
    """One of everything, so that each value of it can be changed in turn."""
    target = sample_target("app", (APP_ROWS[0], (None, 0, 0, None, 0)))
    short = replace(target, tests=target.tests[:1], history=target.history[:1])
    return replace(sample_report(), targets=(short,), findings=sample_report().findings[:1])


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """The places of all values below this one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield (*place, name)
        yield from places(each, (*place, name))


def holder(value: Any, place: Place) -> Any:
    """What holds the value at this place."""
    for name in place[:-1]:
        value = value[name]
    return value


def shortened(value: Any) -> Any:
    """The same with the beginnings of its lists, as a validator takes its time."""
    if isinstance(value, dict):
        return {name: shortened(each) for name, each in value.items()}
    return [shortened(each) for each in value[:20]] if isinstance(value, list) else value


def refusal(value: object) -> str:
    """What is said of something that is no report, in one line; empty if it is taken for one."""
    try:
        report_from_json(value)
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


SMALL = as_json(small_report())
PLACES = list(places(SMALL))
FIRST = ("files", 0, "locations", 0)
"""The first location of a target."""


ADDED = ("form",)
"""Fields that reports of earlier versions lack: they can still be read, to be compared with."""


def test_report_of_an_earlier_version() -> None:
    """Without the fields that were added since, a report is what it was then."""
    value = as_json(sample_report())
    assert value["findings"]
    for finding in value["findings"]:
        del finding["form"]
    VALIDATOR.validate(value)
    again = report_from_json(value)
    assert {each.finding.form for each in again.findings} == {"bytes"}


def test_schema_is_good() -> None:
    """The schema is one, and says something of each field."""
    Draft202012Validator.check_schema(SCHEMA)
    objects = [SCHEMA, *(each for each in SCHEMA["$defs"].values() if "properties" in each)]
    assert len(objects) > 5
    for each in objects:
        assert each["description"].endswith(".")
        assert each["required"] == [name for name in each["properties"] if name not in ADDED]
        assert all(field["description"].endswith(".") for field in each["properties"].values())


@given(REPORTS)
@settings(max_examples=40)
def test_round_trip(report: Report) -> None:
    """What was written is read again as it was, and fits the schema."""
    value = as_json(report)
    VALIDATOR.validate(value)
    again = report_from_json(value)
    assert as_json(again) == value
    assert replace(again, targets=()) == replace(report, targets=())
    for target, before in zip(again.targets, report.targets, strict=True):
        assert replace(target, points=before.points) == before
        assert target.points.by_file == before.points.by_file
        assert target.points.by_function == before.points.by_function


def test_sample_round_trip() -> None:
    """The sample, which has files and functions in their order, is the same value again."""
    VALIDATOR.validate(as_json(sample_report()))
    assert report_from_json(as_json(sample_report())) == sample_report()


def test_real_report(debug_pair: FuzzedPair) -> None:
    """A report of a real executable fits the schema, and comes back with the same points."""
    with Observer() as observer:
        observer.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        assert observer.settle(WAIT)
        report = observer.report()
    value = as_json(report)
    VALIDATOR.validate(shortened(value))
    (target,) = value["targets"]
    assert target["covered"] > 0
    assert sum(file["points"] for file in target["files"]) + len(target["elsewhere"]) == target["points"]
    again = report_from_json(value)
    assert again.targets[0].points.by_file == report.targets[0].points.by_file
    assert again.targets[0].points.addresses == report.targets[0].points.addresses


def test_counters_beyond_all_reason(debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the header of a damaged coverage file counts, the report can be read again."""
    read = CoverageMap.read
    monkeypatch.setattr(
        CoverageMap, "read", lambda self: replace(read(self), n_runs=(1 << 64) - 1, unique_runs=(1 << 64) - 1)
    )
    with Observer() as observer:
        observer.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        assert observer.settle(WAIT)
        (target,) = report_from_json(report_json(observer.report())).targets
    assert target.runs == target.unique_runs == target.session_runs == MAX_COUNT


def test_every_field_is_required() -> None:
    """Without any one of its fields, a report is refused by its schema and by its reader, which names it."""
    fields = [place for place in PLACES if isinstance(place[-1], str) and place[-1] not in ADDED]
    assert len(fields) > 70
    for place in fields:
        value = copy.deepcopy(SMALL)
        del holder(value, place)[place[-1]]
        assert not VALIDATOR.is_valid(value), place
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        assert refusal(value) == f"'{name}' is missing"


def test_schema_has_every_field() -> None:
    """All that is written is described: with further fields forbidden, the sample still fits."""
    strict = json.loads(
        json.dumps(SCHEMA),
        object_hook=lambda each: (
            {**each, "additionalProperties": False} if "required" in each and "properties" in each else each
        ),
    )
    Draft202012Validator(strict).validate(as_json(sample_report()))


def test_further_fields_do_no_harm() -> None:
    """Later versions may add fields to every object."""
    value = copy.deepcopy(SMALL)
    for place in [(), *PLACES]:
        each = holder(value, (*place, ""))
        if isinstance(each, dict):
            each["new in a later version"] = {"format": None}
    VALIDATOR.validate(value)
    assert report_from_json(value) == report_from_json(SMALL)


@pytest.mark.parametrize("wrong", WRONG, ids=[repr(value)[:12] for value in WRONG])
def test_wrong_values(wrong: object) -> None:
    """What the schema refuses, the reader refuses, in one line; and nothing makes it fail otherwise."""
    refused = 0
    for place in PLACES:
        value = copy.deepcopy(SMALL)
        holder(value, place)[place[-1]] = wrong
        said = refusal(value)
        refused += bool(said)
        # Python's infinity and NaN, which JSON has not, are numbers for the validator.
        assert said or VALIDATOR.is_valid(value), place
    assert refused > len(PLACES) / 3


def test_mutations() -> None:
    """However a report is changed: it is refused in one line, or is one that can be written in all forms."""
    random = Random(7)
    original = as_json(sample_report())
    all_places = list(places(original))
    taken = 0
    for _ in range(400):
        value = copy.deepcopy(original)
        for _ in range(random.randint(1, 2)):
            # What stands elsewhere is more often taken for good than what is wrong everywhere.
            place, other = random.choices(all_places, k=2)
            with contextlib.suppress(LookupError, TypeError):  # An earlier change has taken the place away.
                mutant = random.choice([holder(value, other)[other[-1]], random.choice(WRONG)])
                holder(value, place)[place[-1]] = copy.deepcopy(mutant)
        if not refusal(value):
            taken += 1
            report = report_from_json(value)
            for name in FORMATS:
                report_bytes(name, report)
    assert 10 < taken < 390


def test_largest_numbers() -> None:
    """Whatever number of a report is as large as it can be: all forms can be made, of two merged as well."""
    numbers = [place for place in PLACES if type(holder(SMALL, place)[place[-1]]) in (int, float)]
    taken = 0
    for place in numbers:
        for largest in (MAX_COUNT, MAX_SECONDS, -MAX_SECONDS):
            value = copy.deepcopy(SMALL)
            holder(value, place)[place[-1]] = largest
            if place[-1] == "runs" and place[:-1] in ((), ("targets", 0)):
                value["runs"] = value["targets"][0]["runs"] = largest
            if refusal(value):
                continue
            taken += 1
            report = report_from_json(value)
            merged = merge([report, replace(report, time=0.0)])
            VALIDATOR.validate(as_json(merged))
            assert report_from_json(as_json(merged)).findings == merged.findings
            for name in FORMATS:
                report_bytes(name, report)
    assert taken > 25


@pytest.mark.parametrize("wrong", ["../../etc;rm -rf ~", "", "a" * 65, "A1", "a1\n", "$(id)"])
def test_ids_of_findings(wrong: str) -> None:
    """What people paste into a shell is an id, and nothing else."""
    value = copy.deepcopy(SMALL)
    value["findings"][0]["id"] = wrong
    assert refusal(value) == "'findings[0].id' is no finding's id: 1 to 64 of 0-9 and a-f"


@pytest.mark.parametrize("value", [None, 1, "x", [], True])
def test_no_object(value: object) -> None:
    """Other JSON is no report."""
    assert refusal(value) == "it is no JSON object"


def test_other_formats_and_versions() -> None:
    """What is no report of ours, or one of a later version, is told apart."""
    assert refusal({**SMALL, "format": "x\ny"}) == "'format' is not 'fuzzserver-report'"
    assert refusal({**SMALL, "version": 2}) == "it has version 2, and this fuzzserver reads version 1"
    assert refusal({"format": "fuzzserver-report", "version": 7}).startswith("it has version 7")


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (("runs",), -1, "'{T}.runs' is no whole number from 0 to 2^53"),
        (("points",), 3, "'{T}.points' is 3, but what it counts is 2"),
        (("covered",), 0, "'{T}.covered' is 0, but what it counts is 1"),
        (("files", 0, "points"), 7, "'{T}.files[0].points' is 7, but what it counts is 1"),
        (("files", 0, "covered"), 0, "'{T}.files[0].covered' is 0, but what it counts is 1"),
        ((*FIRST, 0), 1, "two locations in '{T}.files' have one number"),
        ((*FIRST, 0), 1 << 32, "'number' of a location in '{T}.files[0].locations' is out of range"),
        ((*FIRST, 1), 1.0, "'address' of a location in '{T}.files[0].locations' is no whole number"),
        ((*FIRST, 2), 0, "'line' of a location in '{T}.files[0].locations' is 0"),
        ((*FIRST, 4), 1, "a location in '{T}.files' is in none of the functions"),
        ((*FIRST, 4), -2, "a location in '{T}.files' is in none of the functions"),
        ((*FIRST, 5), 2, "'covered' of a location in '{T}.files[0].locations' is neither 0 nor 1"),
        (FIRST, [1], "'{T}.files[0].locations[0]' is no list of 6 values"),
        (("history", 0, 0), float("nan"), "'{T}.history[0]' is no number from -10^15 to 10^15"),
        (("history", 0), [1.0, 2], "'{T}.history[0]' is no list of 4 values"),
    ],
)
def test_contradictions(place: Place, wrong: object, said: str) -> None:
    """Numbers that do not fit together, or that nothing can have, are named."""
    value = copy.deepcopy(SMALL)
    target = value["targets"][0]
    holder(target, place)[place[-1]] = wrong
    assert refusal(value) == said.format(T="targets[0]")


@pytest.mark.parametrize(("name", "number"), [("points", 2), ("covered", 1), ("runs", 1000)])
def test_contradicting_sums(name: str, number: int) -> None:
    """The sums over all targets are theirs."""
    said = f"'{name}' is 7, but what it counts is {number}"
    assert refusal({**SMALL, name: 7}) == said


def test_bad_findings() -> None:
    """An input that cannot be decoded, or has another size, is named; so is a finding's field."""
    for name, wrong, said in (
        ("input", "AA=A", "'findings[0].input' is no base64"),
        ("input", "ü", "'findings[0].input' is no base64"),
        ("input_size", 2, "'findings[0].input_size' is 2, but what it counts is 7"),
        ("argv", [1], "'argv' has a value that it cannot have, in 'findings[0]'"),
    ):
        value = copy.deepcopy(SMALL)
        value["findings"][0][name] = wrong
        assert refusal(value) == said


def test_files(tmp_path: Path) -> None:
    """A report is read from its file; names that are no UTF-8 come back as they were."""
    path = tmp_path / "report.json"
    path.write_bytes(report_bytes("json", sample_report()))
    assert read_report(path) == sample_report()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no report: Expecting value"),
        (b"\xff\xff", "is no report: "),
        (b"[" * 100_000, "is no report: "),
        (b'{"format": NaN}', "is no report: NaN is no JSON"),
        (b'{"format": [-Infinity]}', "is no report: -Infinity is no JSON"),
        (b'{"version": ' + b"9" * 5000 + b"}", "is no report: "),
        (b"{}", "cannot be used: 'format' is missing"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, said: str) -> None:
    """What is no JSON, or no report, is told in one line with its path."""
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_report(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_beyond_all_floats(tmp_path: Path) -> None:
    """A number that becomes infinite as it is read is none that a report can have."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(SMALL).replace('"time": ', '"time": 1e999, "_": ', 1))
    with pytest.raises(InputError, match="'time' is no number"):
        read_report(path)


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, a folder, and one that is too large."""
    with pytest.raises(InputError, match="No such file"):
        read_report(tmp_path / "none")
    with pytest.raises(InputError, match="not a regular file"):
        read_report(tmp_path)
    path = tmp_path / "report.json"
    path.write_bytes(report_bytes("json", sample_report()))
    monkeypatch.setattr(json_form, "MAX_FILE", path.stat().st_size)
    assert read_report(path) == sample_report()
    monkeypatch.setattr(json_form, "MAX_FILE", path.stat().st_size - 1)
    with pytest.raises(InputError, match="are more than the"):
        read_report(path)


def test_no_infinity_is_written() -> None:
    """A number that JSON has not is never written."""
    for time in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            report_bytes("json", replace(sample_report(), time=time))


def test_order_does_not_matter() -> None:
    """Points are read in the order of their numbers, in whichever order they are written."""
    value = as_json(sample_report())
    value["targets"][0]["files"].reverse()
    for file in value["targets"][0]["files"]:
        file["locations"].reverse()
    points = report_from_json(value).targets[0].points
    assert list(points.numbers) == list(range(len(APP_ROWS)))
    assert points.file_names[points.files[0]] == MAIN
    assert points.by_file == sample_report().targets[0].points.by_file
