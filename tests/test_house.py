"""The house: which folder may import which, that no circle hides among modules or folders, and that no file is too long."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ROOMS = ("app", "poolbench", "wsgi", "db", "loadgen", "reports", "poolbench_tool")
LONGEST_FILE = 650

LADDER = {
    "": ("poolbench", "db", "app", "wsgi", "reports", "loadgen", "poolbench_tool"),
    "reports": (
        *("names", "printable", "answers", "sketch", "model", "merge", "files", "blocks"),
        *("formats", "compare", "page", "writers", "ci", "cli"),
    ),
    "loadgen": (
        *("clock", "environment", "language", "http", "script"),
        *("recorder", "rows", "schedule", "engine", "closed", "health"),
        *(
            "vu",
            "ping",
            "calibration",
            "watch",
            "crew",
            "runner",
            "script_from",
            "duel",
            "sizing",
            "capacity",
            "lab",
            "commands",
            "help",
            "cli",
            "__main__",
            "shard",
            "processor",
        ),
    ),
}
"""From the bottom up: each may import those before it, never those after."""

MAY_IMPORT = {
    "poolbench": set(),
    "db": {"poolbench"},
    "app": {"db", "poolbench"},
    "wsgi": {"app", "db"},
    "reports": set(),
    "loadgen": {"reports"},
    "poolbench_tool": {"loadgen"},
    "loadgen.lab": {"reports", "db", "poolbench"},
    "loadgen.sizing": {"reports", "db", "poolbench"},
    "loadgen.commands": {"reports", "db", "poolbench"},
}

MAY_ALSO_IMPORT = {
    "loadgen.crew.cluster": {"db.child"},
    "loadgen.crew.relay": {"db.child"},
}
"""Modules outside the rooms above. Child processes are supervised by one class, which imports nothing of ours itself."""

FILES_BESIDE_FOLDERS = {
    "loadgen": "its doors, and what carries out one run",
    "db": "Alembic wants its migrations in a folder",
    "db/migrations": "Alembic wants env.py beside the versions",
    "reports": "the document itself, which every folder here is about",
}


def modules() -> dict[str, Path]:
    files = [ROOT / "app.py", *(path for room in ROOMS[1:] for path in (ROOT / room).rglob("*.py"))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


MODULES = modules()
BENCHMARKS = {f"benchmarks.{f.stem}": f for f in (ROOT / "benchmarks").glob("*.py")}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path, *, at_start_only: bool = False) -> frozenset[str]:
    """Modules of ours that a file imports, anywhere in it or only when it is imported itself."""
    tree = parsed(path)
    found = set()
    nodes = list(_executed_at_import(tree)) if at_start_only else list(ast.walk(tree))
    package = path.parent.relative_to(ROOT).parts
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names if names & (MODULES.keys() | BENCHMARKS.keys()) else {module}
    return frozenset(name for name in found if name.split(".")[0] in (*ROOMS, "benchmarks"))


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
    """The room with rules of its own that a module belongs to."""
    folder = ".".join(module.split(".")[:2])
    return folder if folder in MAY_IMPORT else module.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_the_rooms_it_may(module):
    own = module.split(".", maxsplit=1)[0]
    others = imported(MODULES[module]) - MAY_ALSO_IMPORT.get(module, set())
    assert {name.split(".")[0] for name in others} <= MAY_IMPORT[room_of(module)] | {own}


def test_the_supervision_of_child_processes_imports_nothing_of_ours():
    assert not imported(MODULES["db.child"])


@pytest.mark.parametrize("folder", LADDER)
def test_each_folder_imports_only_those_before_it(folder):
    steps = {name: height for height, name in enumerate(LADDER[folder])}
    depth = len(folder.split(".")) if folder else 0
    climbs = []
    for module, path in MODULES.items():
        if folder and not module.startswith(f"{folder}."):
            continue
        mine = module.split(".")[depth]
        assert mine in steps, f"{module} has no place in the order"
        for name in imported(path):
            parts = name.split(".")
            if len(parts) <= depth or (folder and not name.startswith(f"{folder}.")) or parts[depth] not in steps:
                continue
            if steps[parts[depth]] > steps[mine]:
                climbs.append(f"{module} imports {name}")
    assert not climbs


def test_no_folders_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        mine = _folder(module)
        others = {_folder(name) for name in imported(path)}
        graph.setdefault(mine, set()).update(others - {mine} - {mine.split(".", maxsplit=1)[0]})
    for top in ("loadgen", "reports"):  # files of the top folder stand between its folders: the order above holds them
        graph.pop(top, None)
    assert circle_in(graph) is None


def _folder(module: str) -> str:
    path = MODULES.get(module)
    if path is None:
        return module
    return ".".join(path.parent.relative_to(ROOT).parts) or module


def test_no_module_imports_itself_in_a_circle():
    every = MODULES | BENCHMARKS
    graph = {
        module: {name for name in imported(path, at_start_only=True) if name in every and name != module}
        for module, path in every.items()
    }
    assert circle_in(graph) is None


def test_no_benchmarks_import_each_other_in_a_circle_not_even_inside_functions():
    graph = {module: {name for name in imported(path) if name in BENCHMARKS} for module, path in BENCHMARKS.items()}
    assert circle_in(graph) is None


def test_no_file_is_longer_than_what_one_reads_in_one_go():
    every = [*MODULES.values(), *BENCHMARKS.values(), *(ROOT / "tests").rglob("*.py")]
    assert not {str(f.relative_to(ROOT)) for f in every if len(f.read_text().splitlines()) > LONGEST_FILE}


def test_a_folder_with_folders_in_it_holds_no_files_without_a_reason():
    mixed = set()
    for room in ROOMS[1:]:
        for folder in (ROOT / room, *(f for f in (ROOT / room).rglob("*") if f.is_dir())):
            has_folders = any((f / "__init__.py").exists() for f in folder.iterdir() if f.is_dir())
            if has_folders and any(f.name != "__init__.py" for f in folder.glob("*.py")):
                mixed.add(str(folder.relative_to(ROOT)))
    assert mixed <= FILES_BESIDE_FOLDERS.keys()


def test_reports_work_without_gevent():
    foreign = {
        name
        for module, path in MODULES.items()
        if module.startswith("reports")
        for node in ast.walk(parsed(path))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
    }
    assert not {name for name in foreign if name.startswith("gevent")}


def test_every_public_name_is_documented():
    missing = []
    for module, path in MODULES.items():
        if ".versions" in module:
            continue
        tree = parsed(path)
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


WHOLE_SYSTEM = {"browser", "compose", "doctor", "faults", "packaging", "peers"}
"""Folders of tests that belong to no single room."""


def test_tests_stand_in_the_tree_of_what_they_test():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    strays = {
        str(folder)
        for folder in folders
        if str(folder) not in {".", *WHOLE_SYSTEM}
        and not (ROOT / folder).is_dir()
        and not (ROOT / folder).with_suffix(".py").is_file()
    }
    assert not strays


def test_no_fixture_hides_one_of_the_same_name_from_a_folder_above():
    fixtures: dict[Path, set[str]] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        if "fixture" not in path.read_text():
            continue
        functions = [node for node in parsed(path).body if isinstance(node, ast.FunctionDef)]
        fixtures[path] = {f.name for f in functions if any("fixture" in ast.unparse(d) for d in f.decorator_list)}
    hidden = []
    for path, names in fixtures.items():
        above = [folder / "conftest.py" for folder in path.parents if folder / "conftest.py" != path]
        hidden += [f"{path}: {name}" for conftest in above for name in names & fixtures.get(conftest, set())]
    assert not hidden
