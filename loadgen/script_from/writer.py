"""Writes a draft as an Artillery script in YAML. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from loadgen.script_from.draft import Capture, Draft, Flow, LeftOut, Secret, Step
from reports.printable import printable

_PHASES = (
    {"name": "warm up", "duration": 10, "arrivalRate": 1},
    {"name": "load", "duration": 30, "arrivalRate": 2},
)
_P99_MS = 2000
_PLAIN = re.compile(
    r"[A-Za-z/$][A-Za-z0-9/_.$-]*(?: [A-Za-z0-9/_.$-]+)*|/[A-Za-z0-9/_.$?&=%{} -]*[A-Za-z0-9/_.$?&=%}-]|https?://[\w./:-]+"
)
_WIDEST = 100_000


def script_text(draft: Draft) -> str:
    """The text of the script: its settings, its scenarios, and as comments what was left out."""
    config = CommentedMap({"target": _quoted(draft.target)})
    config["phases"] = CommentedSeq([CommentedMap({k: _quoted(v) for k, v in phase.items()}) for phase in _PHASES])
    limit = max(_P99_MS, -int(-draft.slowest_ms * 5 // 1000) * 1000)
    config["ensure"] = {"maxErrorRate": 1, "thresholds": [{"http.response_time.p99": limit}]}
    config["plugins"] = {"expect": {"outputFormat": "prettyError"}, "ensure": {}}
    _add_secrets(config, draft.secrets)
    root = CommentedMap({"config": config, "scenarios": CommentedSeq([_scenario(flow) for flow in draft.flows])})
    root.yaml_set_start_comment(
        "\n".join([f"Made by `loadgen init` from {_line(draft.title)}.", *map(_line, draft.notes)])
    )
    config.yaml_set_comment_before_after_key(
        "phases", before="A gentle start: virtual users per second. Raise the rates once it runs green.", indent=2
    )
    config.yaml_set_comment_before_after_key(
        "ensure", before="The run fails beyond these: per cent of failed requests, and ms.", indent=2
    )
    yaml = YAML()
    yaml.width = _WIDEST
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(root, stream)
    return stream.getvalue() + _left_out(draft.left_out)


def _add_secrets(config: CommentedMap, secrets: Sequence[Secret]) -> None:
    """The headers of every request: those whose variable is set as such, the others as comments."""
    live = [each for each in secrets if each.is_set]
    waiting = [each for each in secrets if not each.is_set]
    lines = [f"{each.header} comes from the environment variable {each.variable}." for each in live]
    for each in waiting:
        lines += [
            f"Set {each.variable} for the requests that need it, and make this a header of every request:",
            f'defaults: {{headers: {{{_line(each.header)}: "{each.template}"}}}}',
        ]
    if live:
        headers = CommentedMap({_quoted(each.header): _quoted(each.template) for each in live})
        config["defaults"] = CommentedMap({"headers": headers})
    if lines:
        config.yaml_set_comment_before_after_key("defaults" if live else "plugins", before="\n".join(lines), indent=2)


def _scenario(flow: Flow) -> CommentedMap:
    steps = CommentedSeq()
    for step in flow.steps:
        steps.append(CommentedMap({step.method: _request(step)}))
        if step.comment:
            steps.yaml_set_comment_before_after_key(len(steps) - 1, before=_line(step.comment), indent=6)
        if step.think_s:
            steps.append(CommentedMap({"think": _duration(step.think_s)}))
    return CommentedMap({"name": _quoted(flow.name), "flow": steps})


def _request(step: Step) -> CommentedMap:
    request = CommentedMap({"url": _quoted(step.url)})
    if step.headers:
        request["headers"] = _quoted(dict(step.headers))
    if step.body is not None:
        key, value = step.body
        request[key] = _quoted(value)
    if not step.follow_redirect:
        request["followRedirect"] = False
    if step.needs:
        # `a and b` would be a number, which texts are not.
        absent = " or ".join(f"not {name}" for name in step.needs)
        request["ifTrue"] = f"not ({absent})" if len(step.needs) > 1 else step.needs[0]
    if step.captures:
        request["capture"] = [_capture(each) for each in step.captures]
    if step.expect:
        status = list(step.expect)
        request["expect"] = CommentedSeq([CommentedMap({"statusCode": status[0] if len(status) == 1 else status})])
    return request


def _capture(capture: Capture) -> CommentedMap:
    found = CommentedMap({capture.source: _quoted(capture.path)})
    if capture.attribute:
        found["attr"] = capture.attribute
    found.update({"as": capture.variable, "strict": False})
    return found


def _duration(seconds: float) -> int | str:
    """A pause as Artillery reads it: whole seconds as a number, others in ms."""
    return int(seconds) if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def _quoted(value: Any) -> Any:
    """A value whose texts are quoted wherever some reader of YAML might take them for something else."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in (
            "true",
            "false",
            "null",
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
        )
        return value if plain else DoubleQuotedScalarString(value)
    if isinstance(value, dict):
        return CommentedMap({_quoted(str(key)): _quoted(each) for key, each in value.items()})
    return [_quoted(each) for each in value] if isinstance(value, list) else value


def _left_out(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    lines = [f"#   {_line(each.request)}: {_line(each.why)}" for each in left_out]
    return "\n".join(["", "# Left out:", *lines]) + "\n"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
