"""The package as others get it: built into a wheel, installed, and used from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fuzzserver.version import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE_FILES = ("index.html", "main.js", "main.zig", "style.css")


def run(*args: object, cwd: Path) -> str:
    """Run a program in an environment that knows nothing of this checkout; its stdout."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("fuzzserver", "lib"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, source, cwd=out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """The Python of a fresh environment with nothing but the wheel and what it needs."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", wheel, cwd=venv)
    return python


def test_wheel_has_every_file(wheel: Path) -> None:
    """Each module, the page, the example and the type marker are in the wheel, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = (REPOSITORY / "fuzzserver").rglob("*")
    files = {
        str(path.relative_to(REPOSITORY)) for path in package if path.suffix in (".py", ".zig", ".typed")
    }
    page = {f"fuzzserver/lib/fuzzer/web/{name}" for name in PAGE_FILES}
    assert files | page <= names
    assert {name.split("/")[0] for name in names} == {"fuzzserver"}
    assert wheel.name == f"fuzzserver-{__version__}-py3-none-any.whl"


def test_command_works(installed: Path, tmp_path) -> None:
    """The command is there and runs from another folder, and so does the module."""
    version = f"fuzzserver {__version__}\n"
    assert run(installed.with_name("fuzzserver"), "--version", cwd=tmp_path) == version
    assert run(installed, "-m", "fuzzserver", "--version", cwd=tmp_path) == version


def test_files_are_found(installed: Path, tmp_path) -> None:
    """The installed package finds its page and its example inside itself, with the right content."""
    code = "from fuzzserver import paths; print(paths.lib_dir(), paths.example(), paths.__file__, sep='\\n')"
    lib_dir, example, module = map(Path, run(installed, "-c", code, cwd=tmp_path).splitlines())
    package = module.parent
    assert package.is_relative_to(installed.parent.parent)
    assert lib_dir.is_relative_to(package)
    assert example.read_bytes() == (REPOSITORY / "fuzzserver" / "example" / "fuzz_example.zig").read_bytes()
    for name in PAGE_FILES:
        expected = (REPOSITORY / "lib" / "fuzzer" / "web" / name).read_bytes()
        assert (lib_dir / "fuzzer" / "web" / name).read_bytes() == expected
    assert (package / "py.typed").is_file()


def test_only_declared_dependencies_are_needed(installed: Path, tmp_path) -> None:
    """Every module can be imported with what the wheel asks for: wsproto and pyelftools."""
    code = (
        "import importlib, pkgutil, fuzzserver\n"
        "for module in pkgutil.walk_packages(fuzzserver.__path__, 'fuzzserver.'):\n"
        "    if not module.name.startswith('fuzzserver.lib'):\n"
        "        print(importlib.import_module(module.name).__name__)\n"
    )
    modules = run(installed, "-c", code, cwd=tmp_path).split()
    assert "fuzzserver.cli" in modules
    assert "fuzzserver.web.session" in modules


def test_users_pass_strict_type_checks(installed: Path, all_work: Path, tmp_path) -> None:
    """Examples and tutorial fit the types of the installed package, as far as mypy can tell."""
    shutil.copytree(REPOSITORY / "docs" / "examples", tmp_path / "examples")
    text = (REPOSITORY / "docs" / "embedding.md").read_text()
    scripts = [tmp_path / "examples" / "build.py", tmp_path / "examples" / "doit" / "dodo.py"]
    for number, section in enumerate(text.split("\n## ")):
        if blocks := re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            scripts.append(tmp_path / f"section{number}.py")
            scripts[-1].write_text("\n".join(blocks))
    assert len(scripts) == 5
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", all_work / "mypy")
    told = run(*mypy, "--python-executable", installed, *scripts, cwd=tmp_path)
    assert told == "Success: no issues found in 5 source files\n"
