"""A Zig compiler that misbehaves on demand: an executable script, set up by a JSON file.

``support_zig_fake.fake_zig`` writes the settings and a wrapper that starts this file with them. It
imports nothing of the package, so that it is a second opinion on the protocol:

* ``version``, ``env`` -- what ``zig version`` and ``zig env`` do: ``stdout``, ``stderr``, ``exit``, ``hang``
* ``compile`` -- the name of a function in ``COMPILES``
* ``server_version`` -- what the compiler server says that it is

Each call is noted as one line of JSON in ``calls.jsonl`` beside the settings.
"""

import contextlib
import json
import mmap
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
        COMPILES[config["compile"]](Compile(argv, config["server_version"], Path(config_path).parent))


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

    def __init__(self, argv: list[str], version: str, folder: Path) -> None:
        self.argv = argv
        self.version = version
        self.folder = folder
        self.is_exe = argv[0] == "test"

    def value(self, option: str) -> str:
        """The argument after ``option``."""
        return self.argv[self.argv.index(option) + 1]

    def greet(self) -> None:
        """What every compiler says first."""
        send(ZIG_VERSION, self.version.encode())

    def artifact_path(self) -> Path:
        """Where to write what the compile is for; nothing is there."""
        path = Path(self.value("--cache-dir"), "o", DIGEST.hex(), self.value("--name"))
        if not self.is_exe:
            path = path.with_name(path.name + ".wasm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path

    def artifact(self) -> Path:
        """Write what the compile is for."""
        path = self.artifact_path()
        path.write_bytes(elf(pcs=5) if "-ffuzz" in self.argv else b"\0asm\1\0\0\0")
        return path

    def succeed(self) -> None:
        """The rest of a compile without errors."""
        self.artifact()
        self.say_success()

    def wait_until_told(self) -> None:
        """Until the client says what to do: before, it sets our limits and looks at the clock."""
        os.read(0, 1)

    def sign(self, name: str) -> None:
        """Once the client waits, let those see where we are who look for a file beside the settings."""
        self.wait_until_told()
        (self.folder / name).touch()

    def say_success(self) -> None:
        """What a compile without errors says, whatever it has done."""
        send(ERROR_BUNDLE, bytes(8))
        send(FILE_SYSTEM_INPUTS, b"\1main.zig\0\2std/std.zig")
        send(EMIT_DIGEST, b"\0" + DIGEST)


def elf(pcs: int) -> bytes:
    """The least that is an executable whose section of instrumented points has so many."""
    names = b"\0.shstrtab\0__sancov_pcs1\0"
    table = 64
    contents = table + 3 * 64
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0, 0, table, 0, 64, 56, 0, 64, 3, 1)
    strings = struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, contents, len(names), 0, 0, 1, 0)
    points = struct.pack("<IIQQQQIIQQ", 11, 1, 0, 0, contents + len(names), 8 * pcs, 0, 0, 1, 0)
    return header + bytes(64) + strings + points + names + bytes(8 * pcs)


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
def blind(compile: Compile) -> None:
    """An executable in which nothing is instrumented, whatever was asked for."""
    compile.greet()
    compile.artifact_path().write_bytes(elf(pcs=0))
    compile.say_success()


@compile_kind
def hang(compile: Compile) -> None:
    """Greet, then never say anything again."""
    compile.greet()
    compile.sign("endless")
    sleep_for_ever()


@compile_kind
def hang_without_pipes(compile: Compile) -> None:
    """Close both pipes and live on."""
    compile.greet()
    compile.succeed()
    compile.sign("closing")
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


@compile_kind
def flood_stdout(compile: Compile) -> None:
    """Messages without end, each of which is one."""
    compile.greet()
    while True:
        send(9, bytes(65536))


@compile_kind
def empty_messages(compile: Compile) -> None:
    """Messages without end, none of which says anything."""
    compile.greet()
    compile.sign("endless")
    while True:
        os.write(1, struct.pack("<II", 9, 0) * 8192)


@compile_kind
def endless_stderr(compile: Compile) -> None:
    """Words without end."""
    compile.greet()
    compile.sign("endless")
    while True:
        os.write(2, b"x" * 65536)


@compile_kind
def ignore_sigterm(compile: Compile) -> None:
    """Do nothing, and do not end when asked."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    hang(compile)


@compile_kind
def family(compile: Compile) -> None:
    """Children in our session and out of it, all of which ignore what they can, and then nothing."""
    start_family()
    hang(compile)


@compile_kind
def leave_a_family(compile: Compile) -> None:
    """The same children outlive a compile that goes well."""
    compile.greet()
    start_family()
    compile.succeed()


def start_family() -> None:
    """Four processes, two of them in a session of their own, without our pipes."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ready, tell = os.pipe()
    for session in (True, False):
        if os.fork() == 0:
            if session:
                os.setsid()
            os.fork()
            os.write(tell, b".")
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            sleep_for_ever()
    for _ in range(4):
        os.read(ready, 1)


@compile_kind
def eat_memory(compile: Compile) -> None:
    """Take a GiB after the other, up to a TiB; then say how many there were."""
    compile.wait_until_told()
    taken = []
    with contextlib.suppress(OSError):
        while len(taken) < 1024:
            taken.append(mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    sys.exit(f"took {len(taken)} GiB")


@compile_kind
def fill_the_disk(compile: Compile) -> None:
    """Write to the end of ever larger files; then say how large the last one was. They have holes."""
    compile.wait_until_told()
    size = 0
    with contextlib.suppress(OSError), open(compile.folder / "large", "wb") as file:
        while size < 1 << 40:
            os.pwrite(file.fileno(), b"x", size + (1 << 30) - 1)
            size += 1 << 30
    sys.exit(f"wrote {size >> 30} GiB")


@compile_kind
def temporary_folder(compile: Compile) -> None:
    """Keep a folder open as the real one does, and hang."""
    folder = Path(compile.value("--cache-dir"), "tmp", "0123456789abcdef")
    folder.mkdir(parents=True)
    os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    (folder / "half").write_text("done")
    hang(compile)


@compile_kind
def result_elsewhere(compile: Compile) -> None:
    """The path of a file that is none of the cache's."""
    elsewhere = compile.folder / "fuzzer.wasm"
    elsewhere.write_text("secret")
    compile.greet()
    send(EMIT_DIGEST, b"\0" + str(elsewhere).encode())


@compile_kind
def result_above(compile: Compile) -> None:
    """A path that leads out of the cache."""
    (compile.folder / "fuzzer.wasm").write_text("secret")
    above = Path(compile.value("--cache-dir"), "..", "bin", "fuzzer.wasm")
    compile.greet()
    send(EMIT_DIGEST, b"\0" + str(above).encode())


@compile_kind
def result_link(compile: Compile) -> None:
    """A link in place of the result."""
    compile.greet()
    compile.artifact_path().symlink_to("/etc/passwd")
    compile.say_success()


@compile_kind
def result_folder_link(compile: Compile) -> None:
    """A link in place of the folder with the result."""
    folder = compile.artifact_path().parent
    folder.rmdir()
    folder.symlink_to(compile.folder)
    (compile.folder / "fuzzer.wasm").write_text("secret")
    compile.greet()
    compile.say_success()


@compile_kind
def result_fifo(compile: Compile) -> None:
    """A pipe in place of the result: who opens it waits for ever."""
    compile.greet()
    os.mkfifo(compile.artifact_path())
    compile.say_success()


@compile_kind
def result_folder(compile: Compile) -> None:
    """A folder in place of the result."""
    compile.greet()
    compile.artifact_path().mkdir()
    compile.say_success()


@compile_kind
def result_missing(compile: Compile) -> None:
    """No result at all, but its digest."""
    compile.greet()
    compile.artifact_path()
    compile.say_success()


@compile_kind
def result_huge(compile: Compile) -> None:
    """A result of 1 GiB, all of it a hole."""
    compile.greet()
    os.truncate(compile.artifact(), 1 << 30)
    compile.say_success()


@compile_kind
def loop_of_notes(compile: Compile) -> None:
    """An error that is a note of itself."""
    compile.greet()
    extra = [1, 3, 0, 4, 0, 1, 0, 1, 4]
    send(ERROR_BUNDLE, struct.pack(f"<II{len(extra)}I", len(extra), 2, *extra) + b"x\0")


@compile_kind
def wait_for_file(compile: Compile) -> None:
    """Go on when a file named ``go`` appears beside the settings."""
    compile.greet()
    while not (compile.folder / "go").exists():
        time.sleep(0.005)
    compile.succeed()


@compile_kind
def alone(compile: Compile) -> None:
    """Fail if another compile is under way; go on when a file named ``go`` appears beside the settings."""
    (compile.folder / "running").mkdir()
    wait_for_file(compile)
    (compile.folder / "running").rmdir()


if __name__ == "__main__":
    main()
