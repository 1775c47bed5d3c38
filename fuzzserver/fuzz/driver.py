"""The first part of a fuzzing session, and its end (Zig: ``Fuzz.start``).

*Runs on* the thread ``fuzz-driver``, and one thread ``fuzz-worker-N`` for each fuzz test. *Takes* a
root source file. *Gives* a ``FuzzRunStep`` once it is built, messages of the workers, and a status
for people to read.
"""

import logging
import secrets
import threading
from collections.abc import Callable

from fuzzserver.coverage.queue import Msg
from fuzzserver.errors import FuzzServerError, InputError
from fuzzserver.fuzz.build import FuzzRoot, build_tests
from fuzzserver.fuzz.worker import FuzzTest, WorkerEnd, fuzz_worker_run
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import find_fuzz_tests, test_runner_argv

__all__ = ["FuzzDriver", "NoFuzzTests"]

log = logging.getLogger(__name__)
worker_log = logging.getLogger("fuzzserver.worker")
"""What workers wrote on stderr, as it is."""


class NoFuzzTests(InputError):
    """There is nothing to fuzz."""


class FuzzDriver:
    """Builds one root source file and fuzzes all fuzz tests in it.

    The callables are how it tells its server: ``add_step`` when the executable is built, ``post``
    for messages, ``set_status`` with a state and a text. They are called on the driver's threads.
    """

    def __init__(
        self,
        client: ZigCompileClient,
        root: FuzzRoot,
        *,
        add_step: Callable[[FuzzRunStep], None],
        post: Callable[[Msg], None],
        set_status: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._root = root
        self._add_step = add_step
        self._post = post
        self._set_status = set_status
        self._seed = secrets.randbits(32)
        self._children = ChildGroup()
        # Guards ``_running`` and ``crashes``.
        self._lock = threading.Lock()
        self._running = 0
        self.crashes: list[WorkerEnd] = []
        """Workers that ended by themselves."""
        self._workers: list[threading.Thread] = []

    def build(self) -> list[FuzzTest]:
        """Compile, find the fuzz tests, compile in fuzz mode. Raises a FuzzServerError."""
        name = self._root.path.name
        self._set_status("building", f"Compiling the tests of {name} ...")
        normal = build_tests(self._client, self._root, fuzz=False)
        self._set_status("building", f"Running the tests of {name} once, to find the fuzz tests ...")
        argv = test_runner_argv(normal.path, self._root.cache_root, self._seed)
        found = find_fuzz_tests(self._children, argv, self._root.project)
        if not found.fuzz_tests:
            others = f"; it has {_count(len(found.names), 'test')}, none of which calls std.testing.fuzz"
            raise NoFuzzTests(f"no fuzz tests found in '{self._root.path}'{others if found.names else ''}")
        self._set_status("building", f"Compiling the tests of {name} in fuzz mode ...")
        instrumented = build_tests(self._client, self._root, fuzz=True)
        step = FuzzRunStep(name, instrumented.path, self._root.cache_root, instrumented.inputs)
        self._add_step(step)
        return [FuzzTest(step, index, found.names[index]) for index in found.fuzz_tests]

    def start_workers(self, tests: list[FuzzTest]) -> None:
        """Start a worker for each test and return when all run."""
        log.info("fuzzing %s", ", ".join(f"'{test.name}'" for test in tests))
        self._set_status("fuzzing", f"Fuzzing {_count(len(tests), 'test')} of {self._root.path.name}.")
        self._running = len(tests)
        # Zig's fuzzer gives up if another one is just creating the coverage file: let the first create it.
        created = threading.Event()
        for number, test in enumerate(tests):
            thread = threading.Thread(
                target=self._run_worker, args=(test, created), name=f"fuzz-worker-{number}"
            )
            thread.start()
            self._workers.append(thread)
            created.wait()

    def _run_worker(self, test: FuzzTest, created: threading.Event) -> None:
        """Run a worker to its end; ``created`` is set once the coverage file is there, or will not be."""

        def post(msg: Msg) -> None:
            created.set()
            self._post(msg)

        end = self._fuzz(test, post)
        created.set()
        if self._children.stopped:
            return
        if end.stderr:
            worker_log.error("%s", end.stderr.rstrip("\n"))
        log.error("fuzz worker for '%s' %s", test.name, end.how)
        with self._lock:
            self.crashes.append(end)
            self._running -= 1
            running = self._running
        if running == 0:
            log.error("all fuzz workers crashed")
            self._set_status("stopped", _last_words("All fuzz workers have ended.", self.crashes))
        else:
            self._set_status("fuzzing", _last_words(f"{_count(running, 'worker')} left.", self.crashes))

    def _fuzz(self, test: FuzzTest, post: Callable[[Msg], None]) -> WorkerEnd:
        try:
            return fuzz_worker_run(
                self._children, test, self._root.cache_root, self._root.project, self._seed, post
            )
        except (OSError, FuzzServerError) as error:
            return WorkerEnd(test, f"could not be run: {error}", "")

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called: what fails from then on fails because of it."""
        return self._children.stopped

    def stop(self) -> None:
        """End compile and workers, and wait for their threads. May be called twice."""
        self._children.stop()
        self._client.stop()
        for thread in self._workers:
            if thread is not threading.current_thread():
                thread.join()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _last_words(summary: str, ends: list[WorkerEnd]) -> str:
    """A status text: the summary, then each worker's end with what it wrote last."""
    parts = [summary]
    for end in ends:
        parts.append(f"'{end.test.name}' {end.how}.")
        if end.stderr.strip():
            parts.append(end.stderr.strip()[-4000:])
    return "\n".join(parts)
