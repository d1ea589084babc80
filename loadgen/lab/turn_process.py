"""One measurement in a process of its own, which prints its figures as a line of JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from db.child import Child
from loadgen.environment import python_command


def figures_of(module: str, settings: Mapping[str, Any], longest_s: float) -> dict[str, float] | str:
    """The figures that a module prints when it is run with these settings, or the last line of what went wrong.

    Ended after `longest_s`, with all that it has started, such as pgbench; so it is if this process is interrupted.
    """
    pipe = subprocess.PIPE
    turn = Child(python_command(module), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        # The settings are not arguments, which every user of the machine may read: they can have a password.
        printed, said = turn.process.communicate(json.dumps(settings), timeout=longest_s)
    except subprocess.TimeoutExpired:
        return f"did not end within {longest_s:.0f} s"
    finally:
        code = turn.kill()
    lines: list[str] = printed.splitlines()
    if code or not lines:
        problem: list[str] = said.strip().splitlines()
        return problem[-1] if problem else "no figures"
    figures: dict[str, float] = json.loads(lines[-1])
    return figures
