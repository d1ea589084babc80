"""The house: which room may import which, and that no circle hides inside one."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("app", "wsgi", "db", "loadgen", "reports")
MAY_IMPORT = {
    "app": {"db"},
    "wsgi": {"app", "db"},
    "db": set(),
    "loadgen": {"reports"},
    "loadgen.lab": {"reports", "db"},
    "reports": set(),
}


def modules() -> dict[str, Path]:
    files = [ROOT / "app.py", *(path for room in ROOMS[1:] for path in (ROOT / room).rglob("*.py"))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


MODULES = modules()


def imported(path: Path, *, at_start_only: bool = False) -> set[str]:
    """Modules of ours that a file imports, anywhere in it or only when it is imported itself."""
    tree = ast.parse(path.read_text())
    found = set()
    nodes = list(_executed_at_import(tree)) if at_start_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = f"{path.parent.name}.{node.module}" if node.level else node.module
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return {name for name in found if name.split(".")[0] in ROOMS}


def _executed_at_import(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _executed_at_import(node)


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def room_of(module: str) -> str:
    return "loadgen.lab" if module.startswith("loadgen.lab") else module.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_the_rooms_it_may(module):
    room = room_of(module)
    allowed = MAY_IMPORT[room] | {room.split(".")[0]}
    assert {name.split(".")[0] for name in imported(MODULES[module])} <= allowed


def test_only_the_command_line_reaches_into_the_lab():
    users = {
        m for m in MODULES if room_of(m) != "loadgen.lab" and any("loadgen.lab" in i for i in imported(MODULES[m]))
    }
    assert users <= {"loadgen.cli"}


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module: {name for name in imported(path, at_start_only=True) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    assert circle_in(graph) is None


def test_reports_work_without_gevent():
    foreign = {
        name
        for module, path in MODULES.items()
        if module.startswith("reports")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
    }
    assert not {name for name in foreign if name.startswith("gevent")}


def test_every_public_name_is_documented():
    missing = []
    for module, path in MODULES.items():
        if ".versions" in module:
            continue
        tree = ast.parse(path.read_text())
        missing += [module] if not ast.get_docstring(tree) else []
        for node in tree.body:
            for inner in (node, *(node.body if isinstance(node, ast.ClassDef) else ())):
                if (
                    isinstance(inner, (ast.FunctionDef, ast.ClassDef))
                    and not inner.name.startswith("_")
                    and not node.name.startswith("_")
                    and not ast.get_docstring(inner)
                ):
                    missing.append(f"{module}.{inner.name}")
    assert not missing
