"""A Zig compiler that misbehaves on demand: an executable script, set up by a JSON file.

``support_zig_fake.fake_zig`` writes the settings and a wrapper that starts this file with them. It
imports nothing of the package, so that it is a second opinion on the protocol:

* ``version``, ``env`` -- what ``zig version`` and ``zig env`` do: ``stdout``, ``stderr``, ``exit``, ``hang``
* ``compile`` -- the name of a function in ``COMPILES``
* ``server_version`` -- what the compiler server says that it is

Each call is noted as one line of JSON in ``calls.jsonl`` beside the settings.
"""

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

ZIG_VERSION, ERROR_BUNDLE, EMIT_DIGEST, FILE_SYSTEM_INPUTS = 0, 1, 2, 5
DIGEST = bytes(range(16))
COMPILES = {}


def main() -> None:
    """Note the call, then do what the settings say."""
    config_path, *argv = sys.argv[1:]
    config = json.loads(Path(config_path).read_text())
    with Path(config_path).with_name("calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"argv": argv, "pid": os.getpid(), "cwd": os.getcwd()}) + "\n")
    if argv[:1] in (["version"], ["env"]):
        answer(config[argv[0]])
    else:
        COMPILES[config["compile"]](Compile(argv, config["server_version"]))


def answer(behaviour: dict) -> None:
    """Print and exit as told."""
    sys.stdout.buffer.write(behaviour.get("stdout", "").encode("latin-1"))
    sys.stdout.flush()
    sys.stderr.write(behaviour.get("stderr", ""))
    sys.stderr.flush()
    if behaviour.get("hang"):
        sleep_for_ever()
    sys.exit(behaviour.get("exit", 0))


def sleep_for_ever() -> None:
    """Until somebody ends us."""
    while True:
        time.sleep(1000)


def send(tag: int, body: bytes) -> None:
    """One message to the client."""
    sys.stdout.buffer.write(struct.pack("<II", tag, len(body)) + body)
    sys.stdout.buffer.flush()


class Compile:
    """The command line, and the messages of a compile that goes well."""

    def __init__(self, argv: list[str], version: str) -> None:
        self.argv = argv
        self.version = version
        self.is_exe = argv[0] == "test"

    def value(self, option: str) -> str:
        """The argument after ``option``."""
        return self.argv[self.argv.index(option) + 1]

    def greet(self) -> None:
        """What every compiler says first."""
        send(ZIG_VERSION, self.version.encode())

    def artifact(self) -> Path:
        """Write what the compile is for."""
        path = Path(self.value("--cache-dir"), "o", DIGEST.hex(), self.value("--name"))
        if not self.is_exe:
            path = path.with_name(path.name + ".wasm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0asm\1\0\0\0")
        return path

    def succeed(self) -> None:
        """The rest of a compile without errors."""
        self.artifact()
        send(ERROR_BUNDLE, bytes(8))
        send(FILE_SYSTEM_INPUTS, b"\1main.zig\0\2std/std.zig")
        send(EMIT_DIGEST, b"\0" + DIGEST)


def compile_kind(function):
    """Make a function known by its name."""
    COMPILES[function.__name__] = function
    return function


@compile_kind
def ok(compile: Compile) -> None:
    """As the real one."""
    compile.greet()
    compile.succeed()


@compile_kind
def hang(compile: Compile) -> None:
    """Greet, then never say anything again."""
    compile.greet()
    sleep_for_ever()


@compile_kind
def hang_without_pipes(compile: Compile) -> None:
    """Close both pipes and live on."""
    compile.greet()
    compile.succeed()
    os.close(1)
    os.close(2)
    sleep_for_ever()


@compile_kind
def truncated(compile: Compile) -> None:
    """End within a message body."""
    compile.greet()
    sys.stdout.buffer.write(struct.pack("<II", ERROR_BUNDLE, 100) + bytes(10))


@compile_kind
def truncated_header(compile: Compile) -> None:
    """End within a message header."""
    compile.greet()
    sys.stdout.buffer.write(b"\1\0\0")


@compile_kind
def absurd_length(compile: Compile) -> None:
    """Announce a body of 4 GiB, and go on as if it were on its way."""
    compile.greet()
    sys.stdout.buffer.write(struct.pack("<II", ERROR_BUNDLE, 0xFFFFFFFF))
    sys.stdout.buffer.flush()
    sleep_for_ever()


@compile_kind
def lying_bundle(compile: Compile) -> None:
    """An error bundle whose own lengths are wrong."""
    compile.greet()
    send(ERROR_BUNDLE, struct.pack("<II", 1000, 1000))


@compile_kind
def text(compile: Compile) -> None:
    """Print what is no message at all."""
    print("Hello! I am a friendly program that prints text.")


@compile_kind
def emit_bin_path(compile: Compile) -> None:
    """The form before 0.14: a path in place of a digest."""
    compile.greet()
    send(ERROR_BUNDLE, bytes(8))
    send(EMIT_DIGEST, b"\1" + str(compile.artifact()).encode())


@compile_kind
def unknown_messages(compile: Compile) -> None:
    """Tags that a later compiler may send, between those that we know."""
    compile.greet()
    send(8, b"what is this?")
    send(0x80000000, b"")
    compile.succeed()


@compile_kind
def flood_stderr(compile: Compile) -> None:
    """10 MB on stderr before the first message: who does not read it waits for ever."""
    line = b"warning: " + b"x" * 990 + b"\n"
    for _ in range(10_000):
        sys.stderr.buffer.write(line)
    sys.stderr.flush()
    ok(compile)


@compile_kind
def exit_3(compile: Compile) -> None:
    """Fail with a word on stderr."""
    print("fake trouble", file=sys.stderr)
    sys.exit(3)


@compile_kind
def abort(compile: Compile) -> None:
    """Die by a signal, as after a failed assertion."""
    compile.greet()
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGABRT)


@compile_kind
def no_result(compile: Compile) -> None:
    """Neither errors nor a digest."""
    compile.greet()
    send(ERROR_BUNDLE, bytes(8))


@compile_kind
def deaf(compile: Compile) -> None:
    """Close stdin before anything is read from it."""
    os.close(0)
    compile.greet()
    compile.succeed()


@compile_kind
def leave_a_child(compile: Compile) -> None:
    """A background process that holds our pipes when we are gone."""
    compile.greet()
    if os.fork() == 0:
        sleep_for_ever()
    compile.succeed()


if __name__ == "__main__":
    main()
