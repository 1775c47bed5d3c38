"""Programs built with the real compiler, and coverage files written by hand."""

import os
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import Executable
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import SeenPcsHeader
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig

HERE = Path(__file__).resolve().parent


def build_exe(client: ZigCompileClient, source: Path, *flags: str) -> Path:
    """The executable of a Zig program; built once, then taken from the compiler's cache."""
    cache = client.global_cache_dir
    args = ["build-exe", str(source), *flags, "--name", source.stem]
    result = client.compile([*args, "--cache-dir", str(cache), "--global-cache-dir", str(cache)], cache)
    return result.output_dir / source.stem


def build_oracle(client: ZigCompileClient) -> Callable[[Path, Path], bytes]:
    """Gives for an executable and a coverage file the tables that the compiler's own library makes."""
    exe = build_exe(client, HERE / "oracle.zig")

    def run(executable: Path, coverage_file: Path) -> bytes:
        result = subprocess.run([exe, executable, coverage_file], capture_output=True)
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return result.stdout

    return run


def explain(ours: bytes, theirs: bytes) -> None:
    """Fail with the first byte that differs, if any: the bytes themselves are too many to print."""
    if ours != theirs:
        pairs = enumerate(zip(ours, theirs, strict=False))
        at = next((index for index, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
        pytest.fail(f"byte {at} differs: {len(ours)} bytes of ours, {len(theirs)} of Zig's")


def zig_run(client: ZigCompileClient, source: Path, *args: str) -> str:
    """What a Zig program prints on stdout."""
    return subprocess.run(
        [build_exe(client, source), *args], stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def zig_cc(zig: Zig, zig_cache: Path, folder: Path, *args: str) -> None:
    """Run the C compiler that comes with Zig, in ``folder``."""
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(zig_cache), "ZIG_LOCAL_CACHE_DIR": str(zig_cache)}
    result = subprocess.run(
        [str(zig.path), "cc", *args],
        cwd=folder,
        env={**os.environ, **cache},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write ``files``, name to text, below ``folder``."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def coverage_bytes(
    pcs: Sequence[int], seen: Iterable[int] = (), n_runs: int = 1, unique_runs: int = 1
) -> bytes:
    """A coverage file: ``seen`` lists the indexes whose bits are set."""
    header = SeenPcsHeader(n_runs, unique_runs, len(pcs))
    bits = bytearray(header.seen_bits_size)
    for index in seen:
        bits[index // 8] |= 1 << index % 8
    return header.serialize() + bytes(bits) + struct.pack(f"<{len(pcs)}Q", *pcs)


def hand_made_step(folder: Path, executable: Path, pcs: Sequence[int]) -> FuzzRunStep:
    """A step whose coverage file, written to ``folder``, lists ``pcs``."""
    path = folder / "coverage"
    path.write_bytes(coverage_bytes(pcs))
    return FuzzRunStep(executable.name, executable, coverage_file=path)


def code_addresses(path: Path) -> list[int]:
    """Addresses in and around the functions of an executable, and all over its code."""
    with Executable(path) as executable:
        symbols = list(executable._elf.get_section_by_name(".symtab").iter_symbols())
        sections = [s for s in executable._sections.values() if s["sh_flags"] & 4]
        spans = [(s["sh_addr"], s["sh_addr"] + s["sh_size"]) for s in sections]
    functions = [s for s in symbols if s["st_info"]["type"] == "STT_FUNC" and s["st_value"]]
    found = {s["st_value"] + step for s in functions for step in range(0, s["st_size"] + 2, 3)}
    for start, end in spans:
        found.update(range(start, end, max(1, (end - start) // 300)))
    return sorted(pc for pc in found if any(start <= pc < end for start, end in spans))


NO_UBSAN = "-fno-sanitize=undefined"
"""Without this, Zig links a checking runtime into C programs, a hundred times as large as they are."""

LONG_NAME = "/no/such/folder/" + "long" * 600 + ".c"
"""Makes ``.debug_line_str`` longer than all else: Zig 0.14.1 looks there for the ``comp_dir`` of a DWARF 5
unit, which is an offset into ``.debug_str``, and gives the unit up if that is beyond the end."""

C_FILES = {
    "main.c": (
        "int shared(int);\nint twice(int);\n"
        "static int local(int x)\n{\n    if (x > 3)\n        return x + 1;\n    return shared(x);\n}\n"
        "int main(int argc, char **argv)\n{\n    (void)argv;\n    return local(argc) + twice(argc);\n}\n"
    ),
    "lib/shared.c": (
        '#include "inline.h"\n'
        "int unused(int x) { return x * 3; }\n"
        "int shared(int x)\n{\n    int sum = 0;\n    for (int i = 0; i < x; i++)\n"
        "        sum += from_header(i);\n    return sum;\n}\n"
    ),
    "lib/inline.h": "static inline int from_header(int x)\n{\n    return x & 1 ? x : -x;\n}\n",
    "other/twice.c": (
        '#include "../lib/inline.h"\n'
        "int twice(int x)\n{\n    return 2 * from_header(x);\n}\n"
        '#line 1 "generated \xe9.y"\nint generated(int x)\n{\n    return x - 1;\n}\n'
        f'#line 7 "{LONG_NAME}"\nint long_name(int x)\n{{\n    return x;\n}}\n'
    ),
}
C_SOURCES = ("main.c", "lib/shared.c", "other/twice.c")

TABLE_C = """
#define N 3
void a(void) {}
void b(void) {}
void c(void) {}
__attribute__((used, section("__sancov_pcs1"))) void (*const volatile pcs[N])(void) = {a, c, b};
__attribute__((used, section("__sancov_cntrs"))) volatile char counters[N + EXTRA];
int main(void) { return 0; }
"""
"""A PC table by hand, with ``EXTRA`` more counters than PCs."""


def link(zig: Zig, folder: Path, *args: str) -> None:
    """Link objects without any library: Zig compiles those for a minute, for each target."""
    linker = [str(zig.path), "ld.lld", "-e", "main", *args]
    subprocess.run(linker, cwd=folder, check=True, capture_output=True)


def c_executable(zig: Zig, zig_cache: Path, folder: Path, *flags: str) -> Path:
    """An executable of three C files in three folders; other flags, other name."""
    write_files(folder, C_FILES)
    return c_program(zig, zig_cache, folder, C_SOURCES, "exe", *flags)


def table_executable(
    zig: Zig, zig_cache: Path, folder: Path, *flags: str, target: str = "x86_64-linux-musl"
) -> Path:
    """An executable with the PC table of ``TABLE_C``."""
    write_files(folder, {"table.c": TABLE_C})
    args = ("-fPIE", "-DEXTRA=0", *flags)
    return c_program(zig, zig_cache, folder, ("table.c",), f"table-{target}", *args, target=target)


def c_program(
    zig: Zig,
    zig_cache: Path,
    folder: Path,
    sources: Sequence[str],
    name: str,
    *flags: str,
    target: str = "x86_64-linux-musl",
) -> Path:
    """An executable of ``sources``; ``-Wl,`` is before the flags of the linker."""
    name += "".join(flags).replace("/", "")
    compiler_flags = [flag for flag in flags if not flag.startswith("-Wl,")]
    linker_flags = [flag.removeprefix("-Wl,") for flag in flags if flag.startswith("-Wl,")]
    objects = []
    for index, source in enumerate(sources):
        objects.append(f"{name}-{index}.o")
        args = ("-c", "-g", NO_UBSAN, "-target", target, *compiler_flags, source, "-o", objects[-1])
        zig_cc(zig, zig_cache, folder, *args)
    link(zig, folder, *linker_flags, *objects, "-o", name)
    return folder / name
