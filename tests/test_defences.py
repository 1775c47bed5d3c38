"""The tests of the defences bite: without the defence, its test fails, and says so.

What browsers do without the gate and without the headers is in ``test_attack_page.py``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support_defences import DEFENCES, Defence
from tests.support_server import ENVIRONMENT
from tests.switched_off import NOTHING

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the test of each defence says without it; nothing if it passes."""
    folder = tmp_path_factory.mktemp("defences")
    options = {
        "outcomes": folder / "outcomes",
        "override-ini": f"cache_dir={folder / 'cache'}",
        "timeout": 120,
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.switched_off", "-p", "no:xdist", "-qs"),
            *(f"--{name}={value}" for name, value in options.items()),
            *sorted({f"tests/{defence.test}" for defence in DEFENCES}),
        ],
        cwd=Path(__file__).parents[1],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0
    outcomes: dict[str, str] = json.loads(options["outcomes"].read_text())
    return outcomes


def test_all_pass_with_all_defences(outcomes: dict[str, str]) -> None:
    """It is not for another reason that they fail."""
    assert outcomes[NOTHING] == ""


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_test_fails_without(outcomes: dict[str, str], defence: Defence) -> None:
    """Each test misses its defence."""
    said = outcomes[defence.name]
    assert said, f"tests/{defence.test} passes without it"
    assert defence.says in said
