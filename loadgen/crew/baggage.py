"""Packs what other machines need for a run: the script as a value, and the modules that lie beside its processor.

A parsed script holds the contents of all files that it names (payload rows, uploads, certificates, the processor's source),
so the other machines read no files. What cannot be packed is refused before anything is sent.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from loadgen.crew.crew import CrewError, Job
from loadgen.script.model import Loop, MultipartBody, Parallel, RequestStep, Script, Step
from loadgen.script.processor import Processor

_OURS = Path(__file__).parents[2]
_OUR_ROOMS = ("loadgen", "reports")
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Module:
    """A module's source, and the path of its file where the run was started."""

    path: str
    source: bytes
    is_package: bool


def unfit(script: Script) -> list[str]:
    """What of a script cannot travel to other machines; a line for each problem."""
    found = [
        f"{request.place}: a file whose name holds a template is only known when it is sent, and cannot travel to other machines"
        for request in _requests(step for scenario in script.scenarios for step in scenario.flow)
        if any(part.read for body in request.bodies if isinstance(body, MultipartBody) for part in body.parts)
    ]
    return found + [
        f"{script.processor.path}: it imports {module.__file__}, which is not a Python source and cannot travel"
        for module in _beside(script.processor)
        if script.processor and not _is_source(module)
    ]


def pack(job: Job) -> bytes:
    """The bytes of a job and of the modules it needs. Raises CrewError if a value cannot travel, such as one set by `before`."""
    try:
        return pickle.dumps((_modules(job.script.processor), pickle.dumps(job)))
    except Exception as error:
        for name, value in job.script.built_ins.items():
            if not _travels(value):
                raise CrewError(f"the before section left a value in `{name}` that cannot travel: {error}") from None
        raise CrewError(f"the script cannot travel: {error}") from error


def unpack(packed: bytes) -> Job:
    """The job in these bytes. From now on imports find its modules. Loads the processor, so it raises ProcessorError."""
    modules, job = pickle.loads(packed)  # noqa: S301 - the port it came through runs anybody's code anyway
    sys.meta_path.insert(0, _Travelled(modules))
    unpacked: Job = pickle.loads(job)  # noqa: S301
    return unpacked


def _travels(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever the value does when it is asked
        return False
    return True


def _requests(steps: Iterable[Step]) -> Iterator[RequestStep]:
    for step in steps:
        if isinstance(step, RequestStep):
            yield step
        elif isinstance(step, Loop | Parallel):
            yield from _requests(step.steps)


def _beside(processor: Processor | None) -> list[ModuleType]:
    """The user's modules that the processor has imported from its folder, or from a folder below."""
    if processor is None:
        return []
    folder = Path(processor.path).parent.resolve()
    return [
        module
        for name, module in list(sys.modules.items())
        if name != "__main__"
        and (file := getattr(module, "__file__", None))
        and _is_users(Path(file).resolve(), folder)
    ]


def _is_users(file: Path, folder: Path) -> bool:
    ours = any(file.is_relative_to(_OURS / room) for room in _OUR_ROOMS)
    return file.is_relative_to(folder) and not ours and not set(_INSTALLED) & set(file.parts)


def _is_source(module: ModuleType) -> bool:
    return str(module.__file__).endswith(".py")


def _modules(processor: Processor | None) -> dict[str, Module]:
    found: dict[str, Module] = {}
    for module in _beside(processor):
        path = str(module.__file__)
        # The processor itself is part of the script.
        if processor is not None and path == processor.path:
            continue
        found[module.__name__] = Module(path, Path(path).read_bytes(), hasattr(module, "__path__"))
        parent = module.__name__.rpartition(".")[0]
        # A folder without an __init__.py is a package, too.
        while parent:
            found.setdefault(parent, Module(str(Path(path).parent), b"", is_package=True))
            parent = parent.rpartition(".")[0]
    return found


class _Travelled(MetaPathFinder, InspectLoader):
    """Finds the modules that came with the job, before any files of this machine."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        found = self._modules.get(fullname)
        if found is None:
            return None
        return spec_from_loader(fullname, self, origin=found.path, is_package=found.is_package)

    def is_package(self, fullname: str) -> bool:
        return self._modules[fullname].is_package

    def get_source(self, fullname: str) -> str:
        return decode_source(self._modules[fullname].source)

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._modules[fullname].source, self._modules[fullname].path, "exec")
        return code
