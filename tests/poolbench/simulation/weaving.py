"""Loads the pool's package with switch points woven in, on simulated modules for time, threads and gevent.

The files are compiled as they stand; in every function a switch point is added before each statement, which counts down
and calls `interrupt` at zero, and a call of `after` around each call. Between two of them nothing else runs in the
simulation, so what is atomic there is a single statement without calls, or a single call of C code: what CPython's global
interpreter lock promises.
"""

from __future__ import annotations

import ast
import builtins
import sys
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PACKAGE = "poolbench"

# Not a call of Python code: millions of them are counted.
_POINT = "__countdown__.left -= 1\nif not __countdown__.left: __interrupt__()"


class _Weaver(ast.NodeTransformer):
    """Adds `_POINT` before the statements of functions and `__after__()` around their calls."""

    def __init__(self) -> None:
        self._inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self._inside = self._inside, True
        docstring = node.body[:1] if ast.get_docstring(node, clean=False) is not None else []
        node.body = docstring + self._woven(node.body[len(docstring) :])
        self._inside = outer
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not self._inside:
            return node
        return ast.copy_location(ast.Call(ast.Name("__after__", ast.Load()), [node], []), node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if self._inside:
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
        for statement in block:
            for line in ast.parse(_POINT).body:
                for node in ast.walk(line):
                    ast.copy_location(node, statement)
                woven.append(line)
            woven.append(self.visit(statement))
        return woven


@cache
def _woven(source: str, name: str) -> CodeType:
    """The code of a file. Copies of the package that differ in a line share all the other files."""
    return compile(ast.fix_missing_locations(_Weaver().visit(ast.parse(source, name))), name, "exec")


def _is_block(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)


class Package:
    """The modules of one copy of the package, as attributes: `Package(...).fair_pool`.

    folder: the package's files. stand_ins: modules that its own imports find in place of the real ones, by name; None
    for one that cannot be imported. countdown: its `left` is the number of switch points until `interrupt` is called.
    """

    def __init__(
        self, folder: Path, name: str, stand_ins: dict[str, Any], countdown: Any, interrupt: Any, after: Any
    ) -> None:
        self._folder = folder
        # Under a name of its own, beside the real package; dataclasses look their module up in there.
        self._prefix = f"{__name__}.{name}"
        self._stand_ins = stand_ins
        self._builtins = {
            **vars(builtins),
            "__import__": self._import,
            "__countdown__": countdown,
            "__interrupt__": interrupt,
            "__after__": after,
        }
        sys.modules[self._prefix] = ModuleType(self._prefix)

    def __getattr__(self, name: str) -> ModuleType:
        path = self._folder / f"{name}.py"
        if name.startswith("_") or not path.is_file():
            raise AttributeError(name)
        module = ModuleType(f"{self._prefix}.{name}")
        module.__dict__.update(__builtins__=self._builtins, __file__=str(path))
        self.__dict__[name] = sys.modules[module.__name__] = module
        exec(_woven(path.read_text(), f"{PACKAGE}/{path.name}"), module.__dict__)
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
