"""The files of the page, as text."""

import re
from pathlib import Path

WEB = Path(__file__).resolve().parent.parent / "lib" / "fuzzer" / "web"
HTML = (WEB / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(WEB.glob("*.js"))}
STYLES = {path.name: path.read_text(encoding="utf-8") for path in sorted(WEB.glob("*.css"))}
ZIG = {path.name: path.read_text(encoding="utf-8") for path in sorted(WEB.glob("*.zig"))}


def without_comments(text: str) -> str:
    """A style sheet or a script without its comments."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"(?m)(?<![:\"'`\\])//(?![\"'`]).*$", "", text)
