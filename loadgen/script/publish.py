"""Checks `config.plugins.publish-metrics` and turns it into values: where the metrics of each period are to be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadgen.http.message import BadRequestError, address_of
from loadgen.language.values import text, truthy
from loadgen.script import keys
from loadgen.script.document import ABSENT, ScriptNode, nearest
from loadgen.script.model import OpenTelemetry, PushGateway

EXPORTER = "otlp-http"
OTHER_EXPORTERS = ("otlp-proto", "otlp-grpc")
TYPES = ("prometheus", "open-telemetry")
OTHER_TYPES = (
    "cloudwatch", "datadog", "dynatrace", "honeycomb", "influxdb-statsd", "mixpanel", "newrelic", "splunk", "statsd",
)  # fmt: skip

ReadFile = Callable[[str], bytes]


def receivers(part: ScriptNode, read_file: ReadFile) -> tuple[tuple[PushGateway, ...], tuple[OpenTelemetry, ...]]:
    """Read the plugin's list: the push gateways, and the collector. What is not honoured is warned of."""
    if part.value in (ABSENT, None) or not part.expect(list, "a list of objects with a `type`"):
        return (), ()
    gateways: list[PushGateway | None] = []
    collectors: list[OpenTelemetry | None] = []
    for item in part.parts():
        kind = item.get("type")
        if kind == "prometheus":
            gateways.append(_gateway(item, read_file))
        elif kind == "open-telemetry":
            collectors.append(_collector(item, first=not any(collectors)))
        elif kind in OTHER_TYPES:
            item["type"].warn(f"metrics are not sent to {kind}: only to {' and '.join(TYPES)}")
        else:
            like = nearest(str(kind), (*TYPES, *OTHER_TYPES))
            item["type"].warn(f"there is no such type of receiver: {kind!r}", like)
    return tuple(g for g in gateways if g is not None), tuple(c for c in collectors if c is not None)


def _gateway(part: ScriptNode, read_file: ReadFile) -> PushGateway | None:
    part.warn_unknown(keys.PROMETHEUS)
    url = _url(part["pushgateway"])
    if url is None:
        if "pushgateway" not in part:
            part.refuse("a push gateway needs its URL, `pushgateway`")
        return None
    tags: dict[str, str] = {}
    if part["tags"].expect((list, type(None)), "a list of texts `name:value`"):
        for tag in part["tags"].parts():
            name, colon, value = text(tag.value).partition(":")
            if not colon:
                tag.warn("is no tag: it must be `name:value`")
            else:
                # What follows a second colon is left out, as in Artillery.
                tags[name.strip()] = value.partition(":")[0].strip()
    return PushGateway(url, tags, text(part.get("prefix") or "artillery"), _certificates(part["ca"], read_file))


def _certificates(part: ScriptNode, read_file: ReadFile) -> bytes | None:
    if not truthy(part.value) or not part.expect(str, "the name of a file"):
        return None
    try:
        return read_file(part.value)
    except OSError as error:
        part.refuse(f"cannot read {part.value}: {error.strerror or error}")
        return None


def _collector(part: ScriptNode, *, first: bool) -> OpenTelemetry | None:
    part.warn_unknown(keys.TELEMETRY)
    if "traces" in part:
        part["traces"].warn("traces are not sent, only metrics")
    metrics = part["metrics"]
    if not truthy(metrics.value) or not metrics.expect(dict, "an object"):
        return None
    metrics.warn_unknown(keys.TELEMETRY_METRICS)
    if not first:
        metrics.warn("is ignored: metrics are sent to the first collector only, as in Artillery")
        return None
    exporter = metrics.get("exporter") or EXPORTER
    if exporter != EXPORTER:
        known = exporter in OTHER_EXPORTERS
        said = f"metrics are sent by {EXPORTER} only, so none are" if known else f"no such exporter: {exporter!r}"
        (metrics["exporter"].warn if known else metrics["exporter"].refuse)(said)
        return None
    endpoint = _url(metrics["endpoint"]) if truthy(metrics.get("endpoint")) else None
    if endpoint is None and truthy(metrics.get("endpoint")):
        return None
    return OpenTelemetry(
        endpoint,
        {name: text(value) for name, value in _object(metrics["headers"]).items()},
        text(metrics.get("meterName") or "Artillery.io_metrics"),
        _names(metrics["includeOnly"]),
        _names(metrics["exclude"]),
        _object(metrics["attributes"]),
        text(part.get("serviceName") or "Artillery-test"),
        _object(part["resourceAttributes"]),
    )


def _url(part: ScriptNode) -> str | None:
    """The URL, or None where it is absent or has been refused."""
    if not truthy(part.value) or not part.expect(str, "a URL"):
        return None
    try:
        address_of(part.value)
    except BadRequestError as error:
        part.refuse(f"not a URL that metrics can be sent to: {error.name}")
        return None
    return str(part.value)


def _object(part: ScriptNode) -> Mapping[str, Any]:
    return part.value if isinstance(part.value, dict) and part.expect(dict, "an object") else {}


def _names(part: ScriptNode) -> tuple[str, ...]:
    return tuple(text(name) for name in part.value) if isinstance(part.value, list) else ()
