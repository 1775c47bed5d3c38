"""What of what goes on is news to a client."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.web.news import Bulletin, make_bulletin, news_texts


def bulletin(*runs: int, details: dict[str, Any] | None = None, state: str = "fuzzing") -> Bulletin:
    """A target for each number of runs, with a test that has made so many."""
    targets = [
        TargetStatus(f"key{index}", f"name{index}", state, tests=(TestStatus("test", state, n_runs=n_runs),))
        for index, n_runs in enumerate(runs)
    ]
    status = {"state": state, "text": "", "targets": [each.to_json() for each in targets], "findings": []}
    return make_bulletin(status, details or {}, None)


def told(before: Bulletin | None, now: Bulletin) -> list[dict[str, Any]]:
    """The texts, read."""
    return [json.loads(text) for text in news_texts(before, now, None)]


def test_runs_that_go_on_are_told_in_short() -> None:
    """Of fifty tests with long names there would be many kilobytes, twice a second."""
    assert told(bulletin(1, 2), bulletin(1, 3)) == [{"counts": [[1], [3]]}]
    assert told(bulletin(1, 2), bulletin(1, 2)) == []


def test_status_that_changes_is_told_as_a_whole() -> None:
    """So it is when there is one more target, and at first."""
    for before in (None, bulletin(1, state="building"), bulletin(1, 2)):
        first, *rest = told(before, bulletin(5))
        assert first["targets"][0]["tests"][0]["n_runs"] == 5
        assert rest == ([{"findings": []}] if before is None else [])


def test_one_item_of_a_long_list() -> None:
    """A finding that was found once more."""
    before, now = [{"id": index, "count": 1} for index in range(100)], []
    now = [*before[:50], {"id": 50, "count": 2}, *before[51:]]
    texts = told(bulletin(details={"marks": before}), bulletin(details={"marks": now}))
    assert texts == [{"splices": {"marks": [50, 1, [{"id": 50, "count": 2}]]}}]


def test_fields_that_are_no_lists() -> None:
    """They come as they are, also when they become one or are none any more."""
    values = (None, [], {"a": 1}, [1], "text")
    for before in values:
        for now in values:
            texts = told(bulletin(details={"map": before}), bulletin(details={"map": now}))
            assert texts == ([] if before == now else [{"map": now}])


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_client_has_the_whole_list(before: list[int], now: list[int]) -> None:
    """Whatever has changed in it."""
    client = before
    for text in told(bulletin(details={"marks": before}), bulletin(details={"marks": now})):
        if "marks" in text:
            client = text["marks"]
        else:
            start, removed, items = text["splices"]["marks"]
            client = [*client[:start], *items, *client[start + removed :]]
            assert len(items) < len(now) or removed < len(before)
    assert client == now
