"""Warns of parts of a script that can be read, but do nothing: empty lists, and settings of what never happens. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.language.values import text, truthy
from loadgen.script import keys
from loadgen.script.document import ABSENT, ScriptNode

_EMPTY = {"loop": "no step is repeated", "parallel": "nothing is done", "over": "the loop has no round"}
_EMPTY_IN_REQUEST = {"capture": "nothing is captured", "match": "nothing is compared", "expect": "nothing is checked"}
_SECTIONS = ("before", "after")


def warn_of_idle_parts(root: ScriptNode, config: ScriptNode) -> None:
    """Warn of what has no effect. `config` is the section with its templates filled in."""
    flows = [part["flow"] for part in root["scenarios"].parts()]
    sections = [root[name]["flow"] for name in _SECTIONS if name in root]
    for flow, who in (*((f, "its users do nothing") for f in flows), *((f, "it does nothing") for f in sections)):
        _warn_of_empty(flow, who)
    steps = [step for flow in (*flows, *sections) for step in _steps(flow)]
    for action, part in steps:
        _warn_of_step(action, part)
    for scenario in root["scenarios"].parts():
        flow = scenario["flow"]
        actions = [action for action, _ in _steps(flow)]
        hooked = "beforeScenario" in scenario or "afterScenario" in scenario
        if (
            actions
            and not hooked
            and not {"function", *keys.METHODS}.intersection(action.lower() for action in actions)
        ):
            flow.warn("makes no request: its users only wait, log or loop")
    _warn_of_config(config, thinks=any(action == "think" for action, _ in steps))


def _warn_of_empty(part: ScriptNode, consequence: str) -> None:
    if part.value in ([], {}):
        part.warn(f"is empty: {consequence}")


def _steps(flow: ScriptNode) -> Iterator[tuple[str, ScriptNode]]:
    """Each action of a flow with its settings, those inside loops and branches too; of a loop also what it goes over."""
    for item in flow.parts():
        for action, part in item.items():
            yield action, part
            if action in ("loop", "parallel"):
                yield from _steps(part)


def _warn_of_step(action: str, part: ScriptNode) -> None:
    if action in _EMPTY:
        _warn_of_empty(part, _EMPTY[action])
        return
    for key, consequence in _EMPTY_IN_REQUEST.items():
        _warn_of_empty(part[key], consequence)
    if part.get("probability") == 0:
        part["probability"].warn("is 0: the request is never sent")


def _warn_of_config(config: ScriptNode, *, thinks: bool) -> None:
    for defaults in (config["http"]["defaults"], config["defaults"]):
        jitter = defaults["think"]["jitter"]
        # One that cannot be read is told of by its reader.
        if not thinks and text(jitter.value).strip()[:1].isdigit():
            jitter.warn("has no effect: no step of the script thinks")
    if "statsInterval" in config:
        config["statsInterval"].warn("has no effect (in Artillery neither): a period is 10 s")
    if config["timeout"].value not in (ABSENT, None) and not truthy(config.get("timeout")):
        config["timeout"].warn("must be a number of seconds above 0: it has no effect")
    if "apdex" in config and "apdex" not in config["plugins"]:
        config["apdex"].warn("does nothing: the apdex plugin is not listed under config.plugins")
    for name, value in config["variables"].items():
        _warn_of_empty_list(value, f"`{{{{ {name} }}}}` stays undefined")
    _warn_of_phases(config["phases"])
    _warn_of_checks(config)


def _warn_of_empty_list(part: ScriptNode, consequence: str) -> None:
    if part.value == []:
        part.warn(f"is empty: {consequence}")


def _warn_of_phases(phases: ScriptNode) -> None:
    listed = list(phases.parts())
    if not listed:
        _warn_of_empty_list(phases, "no virtual user arrives")
    elif all(isinstance(phase.value, Mapping) and set(phase.value) <= {"pause", "name"} for phase in listed):
        phases.warn("are pauses only: no virtual user arrives")
    names: Counter[Any] = Counter()
    for phase in listed:
        name = phase.get("name")
        if isinstance(name, str):
            names[name] += 1
            if names[name] == 2:
                phase["name"].warn(f"another phase has the name `{name}`, too: they cannot be told apart")


def _warn_of_checks(config: ScriptNode) -> None:
    if "ensure" not in config["plugins"]:
        return
    homes = (config["ensure"], config["plugins"]["ensure"])
    for home in homes:
        for key in ("thresholds", "conditions"):
            _warn_of_empty_list(home[key], "nothing is checked")
    if not any(isinstance(home.value, Mapping) and home.value for home in homes):
        config["plugins"]["ensure"].warn("checks nothing: it has no `thresholds` and no `conditions`")
