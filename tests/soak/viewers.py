"""Part ``viewers``: a thousand of them, and then some among them who never read."""

import time
from collections.abc import Iterator

from tests.soak.row import Row, Settings, none_of, percentile
from tests.soak.servers import fuzzing
from tests.support_audience import Audience, deaf_viewer
from tests.support_facts import facts, held

STALLED = 20
INTERVAL = 0.5
"""Seconds between two updates."""
MARGIN = 0.1
"""Seconds that an update may come late."""
GROWTH = 0.02
"""Seconds by which those who read may suffer from those who do not."""
GONE = 45.0
"""Seconds until the server must have got rid of those."""


def viewers(settings: Settings) -> Iterator[Row]:
    """Measure."""
    count, seconds = settings.some(1000), settings.some(60)
    with fuzzing(settings, "viewers", "--jobs", 1) as program:
        port = program.wait_for_port()
        program.wait_for("entry point at")
        audience = Audience(port, count)
        try:
            audience.settle()
            yield Row(
                f"{count} viewers connect", "none refused", f"in {audience.connecting:.2f} s",
                not audience.problems,
            )  # fmt: skip
            before, p99 = facts(program.pid), _gap(audience, seconds)
            after = facts(program.pid)
            share = (after.cpu - before.cpu) / seconds
            yield none_of(f"dropped in {seconds} s", audience.problems)
            p50 = percentile(audience.gaps, 50)
            yield Row(
                "gap between updates, p99",
                f"< {INTERVAL + MARGIN:.3f} s",
                f"{p99:.3f} s (p50 {p50:.3f} s, {audience.updates} updates)",
                0 < p99 < INTERVAL + MARGIN,
            )
            yield Row("processor time", "< 25 % of a core", f"{share:.0%} of a core", share < 0.25)
            yield Row("memory", "< 100 MB", f"{after.memory:.0f} MB", after.memory < 100)
            audience.shrink(count - STALLED)  # So that there is room.
            yield from _beside_stalled(audience, port, seconds, p99)
        finally:
            audience.close()


def _gap(audience: Audience, seconds: float) -> float:
    """The 99th percentile of the gaps in the next so many seconds."""
    audience.begin()
    time.sleep(seconds)
    return percentile(audience.gaps, 99)


def _beside_stalled(audience: Audience, port: int, seconds: float, before: float) -> Iterator[Row]:
    audience.settle()
    connections = [deaf_viewer(port) for _ in range(STALLED)]
    ports = {connection.getsockname()[1] for connection in connections}
    started = time.monotonic()
    p99 = _gap(audience, min(seconds, 20))
    yield Row(
        f"the same beside {STALLED} that never read, p99",
        f"< {GROWTH * 1000:.0f} ms more",
        f"{(p99 - before) * 1000:+.0f} ms",
        p99 - before < GROWTH,
    )
    there = len(ports & held(port))
    while (left := ports & held(port)) and time.monotonic() < started + 2 * GONE:
        time.sleep(0.1)
    gone = time.monotonic() - started
    yield Row(
        "those are gone", f"in {GONE:.0f} s", f"{there - len(left)} of {STALLED} in {gone:.0f} s",
        not left and gone <= GONE and there == STALLED,
    )  # fmt: skip
    yield none_of("others dropped meanwhile", audience.problems)
    for connection in connections:
        connection.close()
