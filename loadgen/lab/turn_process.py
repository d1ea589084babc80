"""One measurement in a process of its own, which prints its figures as a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def figures_of(module: str, settings: Mapping[str, Any], longest_s: float) -> dict[str, float] | str:
    """The figures that a module prints when it is run with these settings, or the last line of what went wrong.

    Ended after `longest_s`, with all that it has started; so it is if this process is interrupted.
    """
    pipe = subprocess.PIPE
    # The settings are not arguments, which every user of the machine may read: they can have a password. In a group of its own,
    # for a turn may have started pgbench.
    with subprocess.Popen(
        [sys.executable, "-m", module], stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as turn:
        try:
            printed, said = turn.communicate(json.dumps(settings), timeout=longest_s)
        except subprocess.TimeoutExpired:
            return f"did not end within {longest_s:.0f} s"
        finally:
            if turn.poll() is None:
                os.killpg(turn.pid, signal.SIGKILL)
    lines = printed.splitlines()
    if turn.returncode or not lines:
        return (said.strip().splitlines() or ["no figures"])[-1]
    figures: dict[str, float] = json.loads(lines[-1])
    return figures
