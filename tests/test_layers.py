"""The package's shape: who imports whom, what is documented, how long modules are."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import fuzzserver

PACKAGE = Path(fuzzserver.__file__).parent

LAYERS = (
    ("errors",),
    ("wire", "paths", "findings", "instance_input"),
    ("step", "corpus"),
    ("zig", "coverage"),
    ("report", "events", "remote"),
    ("observer",),
    ("fuzz", "web"),
    ("webserver", "verdict"),
    ("fuzz_session",),
    ("environment",),
    ("reporting", "smoke_client"),
    ("fuzzing", "merging", "reproducing", "showing", "smoking"),
    ("cli",),
    ("fuzzserver", "__main__"),
)
"""As in the docstring of the package: each layer imports only those before it. The last is the door."""

LEAVES = (
    "access",
    "argument_types",
    "arguments",
    "console",
    "exit_code",
    "files",
    "freshness",
    "logbook",
    "option_groups",
    "signals",
    "stack",
    "status",
    "version",
)
"""Import nothing of the package but each other; everybody may import them."""

COMMAND_LINE = (
    *("arguments", "argument_types", "option_groups", "console", "signals", "environment", "cli"),
    *("fuzzing", "merging", "reporting", "reproducing", "showing", "smoking"),
)
"""What ``import fuzzserver`` does not bring."""

MAX_LINES = 450


def module_name(path: Path) -> str:
    """``fuzzserver.wire.abi`` for its file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
every_module = pytest.mark.parametrize("name", MODULES)


def parse(name: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(MODULES[name].read_bytes())


def layer_name(name: str) -> str:
    """The first part below the package: ``wire`` for ``fuzzserver.wire.abi``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def rank(layer: str) -> int:
    """The place of a layer; leaves are below all."""
    if layer in LEAVES:
        return -1
    (found,) = [place for place, layers in enumerate(LAYERS) if layer in layers]
    return found


def imports(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute here"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [module if module in MODULES else str(node.module) for module in submodules]
        else:
            continue
        yield from (module for module in found if module.split(".")[0] == "fuzzserver")


def test_every_module_is_found() -> None:
    """The rules below see the modules that there are."""
    assert {"fuzzserver", "fuzzserver.cli", "fuzzserver.wire.abi", "fuzzserver.web.session"} <= set(MODULES)
    assert set(imports("fuzzserver.webserver")) >= {"fuzzserver.paths", "fuzzserver.step"}


@every_module
def test_imports_go_down(name: str) -> None:
    """A module imports its own layer's and lower layers' modules, none beside or above it."""
    own = layer_name(name)
    for module in imports(name):
        layer = layer_name(module)
        assert own not in LEAVES or layer in LEAVES, (
            f"{name} must import nothing of the package, but {module}"
        )
        assert own in LEAVES or layer == own or rank(layer) < rank(own), f"{name} must not import {module}"


def test_web_does_not_know_zig() -> None:
    """The web layer is handed a function that builds wasm; it knows no compiler."""
    for name in MODULES:
        if layer_name(name) == "web":
            assert not [module for module in imports(name) if layer_name(module) in ("zig", "fuzz")]


def test_only_the_wiring_knows_every_layer() -> None:
    """Only the wiring knows both the web and the compiler."""
    both = [name for name in MODULES if {"web", "zig"} <= {layer_name(module) for module in imports(name)}]
    assert both == ["fuzzserver.webserver"]


def test_package_imports() -> None:
    """Importing the package does not import the command line."""
    assert not {layer_name(module) for module in imports("fuzzserver")} & set(COMMAND_LINE)


def test_order_is_the_documented_one() -> None:
    """The docstring of the package names the layers in this order."""
    text = " ".join((fuzzserver.__doc__ or "").split())
    low = "``errors``, ``wire``, ``findings``, ``step``, ``corpus`` | ``zig`` and ``coverage`` | ``report``"
    high = "``webserver`` | ``fuzz_session`` | ``fuzzing``, ``showing``, ``reproducing`` | ``cli``"
    assert f"{low} | ``observer`` | ``fuzz`` and ``web`` | {high}" in text


@every_module
def test_docstrings(name: str) -> None:
    """Every module and every public class, function and method says what it is for."""
    tree = parse(name)
    assert ast.get_docstring(tree), f"{name} has no docstring"
    missing = [f"{name}:{node.lineno} {node.name}" for node in public(tree) if not ast.get_docstring(node)]
    assert missing == []


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public definitions and, in public classes, public methods. Dunder methods are not counted."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


@every_module
def test_public_names(name: str) -> None:
    """Every module lists its public names, each once, and has all of them."""
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for each in module.__all__:
        assert hasattr(module, each), f"{name} has no {each}"


@every_module
def test_length(name: str) -> None:
    """A module can be read in one go."""
    assert len(MODULES[name].read_text().splitlines()) <= MAX_LINES
