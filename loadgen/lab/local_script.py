"""The script that loads servers which this program has started on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from loadgen.http.proxy import VARIABLES
from loadgen.runner import read_script
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions

_NONE = RunOptions()
_PROXIES = {name for names in VARIABLES.values() for name in names}


def local_script(
    path: str,
    url: str,
    folder: Path,
    phase: Mapping[str, object] | None = None,
    given: RunOptions = _NONE,
) -> Script:
    """The script at `path` for servers at `url`: with its own phases, or with a single one. `folder`: the working directory.

    It sees the variables of the environment, except those for a proxy, which must not come between us and this machine.
    `given`: what else the user asked for. Raises ScriptErrors, and OSError for its file.
    """
    overrides = None if phase is None else json.dumps({"config": {"phases": [phase]}})
    env = {name: value for name, value in os.environ.items() if name not in _PROXIES}
    return read_script([path], replace(given, target=url, overrides=overrides, env=env, directory=str(folder)))
