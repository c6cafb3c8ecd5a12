"""The house rules that a machine can hold, with the reason in each failure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vws"

PURE = {
    "__future__", "ast", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "difflib", "enum",
    "fractions", "functools", "hashlib", "heapq", "ipaddress", "itertools", "keyword", "math", "operator", "re",
    "types", "typing", "urllib.parse", "vws.core",
    # Arithmetic with calendars; its clock (datetime.now) is ruled out by name below, zones are handed in.
    "dateutil.rrule",
    # Their readers of text in memory; nothing of them opens a file.
    "json", "tomllib", "yaml", "xml.parsers.expat",
    # Of signatures, the arithmetic alone: keys are handed in, and nothing here makes one.
    "cryptography", "securesystemslib",
    # How Debian orders versions.
    "debian.debian_support",
    # The words by which the compiler of core/plan is told of machine integers; they mean nothing at run time.
    "mypy_extensions",
}  # fmt: skip
AMBIENT = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "uuid1", "uuid4", "random", "open", "getenv"}

# What each room may import of the others; rooms not named may import everything.
ROOMS = {
    "core": {"core"},
    "ports": {"core"},
    "service": {"core", "ports", "service", "faultpoints"},
    "frontends": {"core", "ports", "service", "frontends", "faultpoints"},
    "node": {"core", "ports", "node", "faultpoints", "guest"},  # what it brings into guests
    "store": {"core", "ports", "store", "faultpoints"},
    "guest": {"guest"},
    "factory": {"core", "factory", "guest"},
    "client": {"client"},
}


def modules(room: str) -> Iterator[Path]:
    single = PACKAGE / f"{room}.py"
    yield from [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from vws import x` names vws.x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; name the whole module"
            if node.module == "vws":
                yield from ((node.lineno, f"vws.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    seen = 0
    for path in modules(room):
        for line, module in imports(path):
            if not module.startswith("vws."):
                continue
            seen += 1
            target = module.split(".")[1]
            if target == "__version__":
                continue
            assert target in ROOMS[room], f"{path}:{line}: {room} imports {module}; it may know {sorted(ROOMS[room])}"
    assert seen or room in ("guest", "client"), f"no imports found in {room}: is it still there?"


def test_no_front_end_imports_another():
    for path in modules("frontends"):
        mine = path.relative_to(PACKAGE / "frontends").parts[0].removesuffix(".py")
        for line, module in imports(path):
            parts = module.split(".")
            if parts[:2] == ["vws", "frontends"] and len(parts) > 2:
                assert parts[2] in (mine, "faults", "wakeful"), f"{path}:{line}: {mine} imports {module}"


def test_the_core_imports_only_pure_modules():
    for path in modules("core"):
        for line, module in imports(path):
            known = any(module == p or module.startswith(p + ".") for p in PURE)
            assert known, f"{path}:{line}: core imports {module}; pass what it gives as an argument"


def test_the_core_reads_no_clock_and_no_randomness():
    for path in modules("core"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", None))
                if called == "time" and node.args:  # is told the time
                    continue
                assert called not in AMBIENT, f"{path}:{node.lineno}: core calls {called}(); take it as an argument"


def test_no_shell_strings():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("os.system", "os.popen", "subprocess.getoutput", "asyncio.create_subprocess_shell"), (
                f"{path}:{node.lineno}: {called} builds a shell string; give an argument list"
            )
            for keyword in node.keywords:
                assert not (keyword.arg == "shell" and getattr(keyword.value, "value", True)), (
                    f"{path}:{node.lineno}: shell=True; give an argument list"
                )


def test_modules_say_what_they_are_for():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not tree.body or ast.get_docstring(tree), f"{path}: a module opens with its theory"


def test_no_module_is_called_after_nothing():
    names = {p.stem for p in PACKAGE.rglob("*.py")}
    assert not names & {"util", "utils", "common", "helper", "helpers", "manager", "misc"}


def test_every_fault_point_is_reached_somewhere_and_named_once():
    from vws.faultpoints import POINTS

    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'reach\("([a-z.]+)"\)', path.read_text()))
    assert used == set(POINTS)
