"""Small Zig programs, and how to compile them."""

import shutil
import textwrap
from pathlib import Path

HELLO = """
const other = @import("other.zig");
pub fn main() void {
    other.nothing();
}
"""

BROKEN = """
pub fn main() void {
    const answer: u8 = 1000;
    _ = answer;
    undeclared();
}
"""

NO_FUZZ = """
test "one" {}
test "two" {}
"""


def write(folder: Path, **files: str) -> Path:
    """Write each ``name="text"`` as ``name.zig``; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.zig" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        text = textwrap.dedent(text).lstrip()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return paths[0]


def forget_corpus(project: Path) -> None:
    """Let fuzzing begin anew: Zig 0.14 makes its inputs half as long again with each restart.

    After twenty restarts they have megabytes, and a run takes seconds.
    """
    shutil.rmtree(project / ".zig-cache" / "f", ignore_errors=True)


def hello(folder: Path) -> Path:
    """A program of two files; returns the first."""
    return write(folder, main=HELLO, other="pub fn nothing() void {}")


def build_args(root: Path, cache_dir: Path, global_cache_dir: Path, *flags: str) -> list[str]:
    """The arguments that compile ``root``, without code generation by LLVM: half a second."""
    return [
        *("build-exe", "-fno-llvm", "-fno-lld", *flags, f"-Mroot={root}"),
        *("--cache-dir", str(cache_dir), "--global-cache-dir", str(global_cache_dir), "--name", "hello"),
    ]
