"""The JSON Schema (draft 2020-12) of scripts, from the tables that the parser has its keys from. Pure."""

from __future__ import annotations

from typing import Any

from loadgen.script import keys

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_METHOD = "|".join("".join(f"[{c.upper()}{c}]" for c in method) for method in keys.METHODS)


def schema() -> dict[str, Any]:
    """The schema of a whole script, for editors that complete and check YAML by it."""
    return {
        "$schema": DRAFT,
        "title": "Script of a load test",
        "description": "An Artillery script for HTTP, as `loadgen run` reads it.",
        # YAML's anchors may stand under keys of their own.
        **_object(keys.ROOT, closed=False),
        "required": ["scenarios"],
        "$defs": _definitions(),
    }


def _definitions() -> dict[str, Any]:
    return {
        # Plugins that are not ours may have their settings here.
        "config": _object(keys.CONFIG, closed=False),
        "phase": {
            **_object(keys.PHASE),
            "anyOf": [{"required": ["duration"]}, {"required": ["pause"]}],
            "dependentSchemas": {
                "concurrency": {
                    "not": {"anyOf": [{"required": [key]} for key in ("arrivalRate", "arrivalCount", "rampTo")]}
                }
            },
        },
        "payload": _object(keys.PAYLOAD),
        "http": _object(keys.HTTP),
        "cookieJarOptions": _object(keys.COOKIE_JAR),
        "defaults": _object(keys.DEFAULTS),
        "tls": _object(keys.TLS),
        "plugins": _object(keys.PLUGINS, closed=False),
        "ensure": _object(keys.ENSURE),
        "apdex": _object(keys.APDEX),
        "receiver": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "description": "prometheus or open-telemetry; others are not sent to."}
            },
            "allOf": [
                _if_type("prometheus", {**_object(keys.PROMETHEUS), "required": ["pushgateway"]}),
                _if_type("open-telemetry", _object(keys.TELEMETRY)),
            ],
        },
        "telemetryMetrics": _object(keys.TELEMETRY_METRICS),
        "section": {**_object(keys.SCENARIO, closed=False), "required": ["flow"]},
        "scenario": {**_object(keys.SCENARIO, closed=False), "required": ["flow"]},
        "step": _step(),
        "request": {**_object(keys.REQUEST), "anyOf": [{"required": ["url"]}, {"required": ["uri"]}]},
        "capture": _object(keys.CAPTURE),
        "expectation": {**_object(keys.EXPECTATION), "minProperties": 1},
    }


def _step() -> dict[str, Any]:
    """A step has one action; a loop has options beside it, and a think time may have its jitter."""
    out = _object(keys.STEP)
    return {
        **out,
        "patternProperties": {f"^({_METHOD})$": {"$ref": "#/$defs/request"}},
        "minProperties": 1,
        "if": {"required": ["loop"]},
        "then": {"properties": dict.fromkeys(keys.LOOP, True), "additionalProperties": False},
        "else": {"if": {"required": ["think", "jitter"]}, "then": {"maxProperties": 2}, "else": {"maxProperties": 1}},
    }


def _if_type(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {"type": {"const": name}}}, "then": shape}


def _object(table: keys.Keys, *, closed: bool = True) -> dict[str, Any]:
    """The schema of an object with these keys. `closed`: with no others, because the parser warns of them."""
    properties = {key: {**kind, "description": about} for key, (kind, about) in table.items()}
    out: dict[str, Any] = {"type": "object", "properties": properties}
    return {**out, "additionalProperties": False} if closed else out
