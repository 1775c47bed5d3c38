"""A test executable that misbehaves: a Python program that speaks the test runner's protocol, badly.

``runner`` gives its source: helpers, then what the test wants it to do.
"""

import shlex
import sys
import textwrap
from pathlib import Path

HELPERS = """
import os, struct, sys, time

def send(tag, body=b""):
    os.write(1, struct.pack("<II", tag, len(body)) + body)

def receive():
    head = os.read(0, 8)
    if not head:
        sys.exit(0)
    tag, size = struct.unpack("<II", head)
    return tag, os.read(0, size) if size else b""

def metadata(*names):
    strings, offsets = b"\\0", []
    for name in names:
        offsets.append(len(strings))
        strings += name.encode() + b"\\0"
    words = offsets + [0] * len(names)
    send(3, struct.pack("<II", len(strings), len(names)) + struct.pack(f"<{len(words)}I", *words) + strings)

send(0, b"0.14.1")
"""


def runner(folder: Path, code: str) -> Path:
    """An executable that runs ``code`` after the helpers."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "runner.py"
    script.write_text(HELPERS + textwrap.dedent(code))
    path = folder / "test"
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", str(script)])} "$@"\n')
    path.chmod(0o755)
    return path
