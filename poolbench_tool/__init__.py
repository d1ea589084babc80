"""The door of the installed tool: it makes the tool's modules importable in the tool's own processes, and nowhere else.

Those modules have names that other applications use too (`app`, `db`, `reports`, `wsgi`). So none of them is installed where an
application would find it: an installation holds them in the folder `tree` beside this file. A process of the tool puts that
folder on its own import path. Nothing goes into the environment, where an application's processes would inherit it.
"""

import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the command line: the console scripts `loadgen` and `poolbench`."""
    open_tree()
    from loadgen.__main__ import main as loadgen  # noqa: PLC0415 - it cannot be found before

    loadgen()


def open_tree() -> None:
    """Put the tool's modules first on this process's import path. In a checkout they lie beside this package."""
    here = Path(__file__).resolve().parent
    tree = here / "tree"
    sys.path.insert(0, str(tree if tree.is_dir() else here.parent))


def dask_setup(_process: Any) -> None:
    """What `dask worker --preload poolbench_tool` and `dask scheduler --preload poolbench_tool` call at their start."""
    open_tree()
