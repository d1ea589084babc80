"""Loads the pool's package with switch points woven in, on simulated modules for time, threads and gevent.

The files are compiled as they stand; in every function a switch point is added before each statement, which takes an item of
`__ticks__` and calls `interrupt` where there is none, and one after each call, which calls `after_a_call` then. Between two
of them nothing else runs in the simulation, so what is atomic there is a single statement without calls, or a single call of C
code: what CPython's global interpreter lock promises.

Each point costs time, so there is only one where two would be the same to all other threads: a call that is a statement, or
whose value goes to a local variable, has its point behind the statement, in place of the one before the next; and a statement
that neither reads nor changes anything that another thread knows has none before it.
"""

from __future__ import annotations

import ast
import builtins
import marshal
import sys
from functools import cache
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "poolbench"

# Of all ways to count in CPython one of the cheapest: millions of points are counted.
_POINT = "for __tick__ in __ticks__: break\nelse: __interrupt__()"
_POINT_AFTER = "for __tick__ in __ticks__: break\nelse: __after_a_call__()"
_AFTER = """
def __after__(value):
    for _ in __ticks__:
        return value
    __after_a_call__()
    return value
"""


class _Weaver(ast.NodeTransformer):
    """Adds `_POINT` before the statements of functions, `_POINT_AFTER` or `__after__()` to their calls.

    _locals: names of the function's variables that nobody else sees; None outside functions.
    """

    def __init__(self) -> None:
        self._locals: set[str] | None = None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self._locals = self._locals, _own_variables(node)
        docstring = node.body[:1] if ast.get_docstring(node, clean=False) is not None else []
        node.body = docstring + self._woven(node.body[len(docstring) :])
        self._locals = outer
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if self._locals is None:
            return node
        return ast.copy_location(ast.Call(ast.Name("__after__", ast.Load()), [node], []), node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if self._locals is not None:
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    setattr(node, name, self._woven(block))
            rest = {name: value for name, value in ast.iter_fields(node) if not _is_block(value)}
            for name, value in rest.items():
                if isinstance(value, list):
                    setattr(node, name, [self.visit(item) if isinstance(item, ast.AST) else item for item in value])
                elif isinstance(value, ast.AST):
                    setattr(node, name, self.visit(value))
            return node
        return super().generic_visit(node)

    def _woven(self, block: list[ast.stmt]) -> list[ast.stmt]:
        woven: list[ast.stmt] = []
        has_point = False
        for statement in block:
            if not has_point and not self._is_private(statement):
                woven += _lines(_POINT, statement)
            call = self._call_of(statement)
            if call is None:
                woven.append(self.visit(statement))
            else:
                self.generic_visit(call)
                woven += [statement, *_lines(_POINT_AFTER, statement)]
            has_point = call is not None
        return woven

    def _call_of(self, statement: ast.stmt) -> ast.Call | None:
        """The call that is all of the statement, but for local variables that take its value."""
        value = getattr(statement, "value", None)
        if not isinstance(value, ast.Call):
            return None
        is_whole = isinstance(statement, ast.Expr) or (
            isinstance(statement, ast.Assign) and all(self._is_local(target) for target in statement.targets)
        )
        return value if is_whole else None

    def _is_private(self, statement: ast.stmt) -> bool:
        """Whether the statement itself, without the blocks in it, neither reads nor changes what other threads know."""
        match statement:
            case ast.Try() | ast.Pass() | ast.Break() | ast.Continue():
                return True
            # Not an `if`: whether a list that others know is empty, they may change.
            case ast.Return(value):
                return value is None or self._is_local(value)
            case ast.Assign(targets, value):
                return all(self._is_local(each) for each in [*targets, value])
        return False

    def _is_local(self, node: ast.expr) -> bool:
        """Whether the expression is a constant or a variable that nobody else sees."""
        return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in (self._locals or ()))


def _lines(source: str, at: ast.stmt) -> list[ast.stmt]:
    lines = ast.parse(source).body
    for line in lines:
        for node in ast.walk(line):
            ast.copy_location(node, at)
    return lines


def _own_variables(function: ast.FunctionDef) -> set[str]:
    """The function's arguments and variables. None of them if there is a function in it, which may refer to them."""
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    if any(isinstance(node, (ast.FunctionDef, ast.Lambda)) for node in nodes):
        return set()
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    shared = {name for node in nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names}
    return (arguments | stored) - shared


@cache
def _code(source: str, name: str, has_points: bool) -> bytes:
    """The marshalled code of a file. Copies of the package that differ in a line share all the other files.

    But each makes code objects of its own from it: CPython adapts code to the types that it meets, and adapted to one copy of
    the package, it is slow in another.
    """
    tree: ast.AST = ast.parse(source, name)
    if has_points:
        tree = ast.fix_missing_locations(_Weaver().visit(tree))
    return marshal.dumps(compile(tree, name, "exec"))


def _is_block(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)


class Package:
    """The modules of one copy of the package, as attributes: `Package(...).fair_pool`.

    folder: the package's files. stand_ins: modules that its own imports find in place of the real ones, by name; None
    for one that cannot be imported. names: what all its code can name; `__ticks__` there is an iterator that ends at the
    switch point of the next interruption: a call of `interrupt`, or of `after_a_call` at a point after a call. `__after__` is
    such a point around a call, whose value it passes on. has_points: False leaves all switch points out.
    """

    def __init__(self, folder: Path, name: str, stand_ins: dict[str, Any], *, has_points: bool = True) -> None:
        self._folder = folder
        self.has_points = has_points
        # Under a name of its own, beside the real package; dataclasses look their module up in there.
        self._prefix = f"{__name__}.{name}"
        self._stand_ins = stand_ins
        self.names = {
            **vars(builtins),
            "__import__": self._import,
            "__ticks__": repeat(None),
            "__interrupt__": None,
            "__after_a_call__": None,
        }
        inside = {"__builtins__": self.names}
        exec(_AFTER, inside)
        self.names["__after__"] = inside["__after__"]
        sys.modules[self._prefix] = ModuleType(self._prefix)

    def __getattr__(self, name: str) -> ModuleType:
        path = self._folder / f"{name}.py"
        if name.startswith("_") or not path.is_file():
            raise AttributeError(name)
        module = ModuleType(f"{self._prefix}.{name}")
        module.__dict__.update(__builtins__=self.names, __file__=str(path))
        self.__dict__[name] = sys.modules[module.__name__] = module
        code = _code(path.read_text(), f"{PACKAGE}/{path.name}", self.has_points)
        exec(marshal.loads(code), module.__dict__)
        return module

    def loaded(self) -> list[ModuleType]:
        """The modules that have been imported so far."""
        return [value for value in self.__dict__.values() if isinstance(value, ModuleType)]

    def _import(self, name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name in self._stand_ins:
            found = self._stand_ins[name]
            if found is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            # `import a.b` binds `a`; the stand-in of `a` has `b` as an attribute.
            return found if fromlist else self._stand_ins[name.split(".", maxsplit=1)[0]]
        if name == PACKAGE:
            for each in fromlist:
                if (self._folder / f"{each}.py").is_file():
                    getattr(self, each)
            return self
        if name.startswith(f"{PACKAGE}."):
            return getattr(self, name.removeprefix(f"{PACKAGE}."))
        return builtins.__import__(name, globals_, locals_, fromlist, level)
