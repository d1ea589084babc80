"""Checks the sections of `config` and turns them into values. Pure; their templates are already filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadgen.http.message import BadRequestError, field_lines
from loadgen.http.tls import TlsSettings
from loadgen.language.values import text, to_number, truthy
from loadgen.script import keys, model
from loadgen.script.document import ABSENT, ScriptNode, nearest
from loadgen.script.durations import LONGEST_S, duration_text, seconds
from loadgen.script.ensure import checks_of
from loadgen.script.payload import PayloadError, loses_digits, read_rows
from reports.names import ENDPOINT

_PLUGINS = tuple(keys.PLUGINS)
_MOST = 2**53
_HIGHEST_RATE = 1e9
_APDEX_MS = 500.0


def phases(part: ScriptNode, *, mode: ScriptNode, poisson: bool, smooth: bool) -> tuple[model.Phase, ...]:
    """Read `config.phases`. `mode` is that of `config`; `poisson` gives every phase with a rate Poisson arrivals, and
    `smooth` makes ramps climb evenly.
    """
    if not part.expect(list, "a list"):
        return ()
    _warn_of_mode(mode)
    items = [item for item in part.parts() if not _has_no_length(item)]
    found = (_phase(i, item, mode.value, poisson=poisson, smooth=smooth) for i, item in enumerate(items))
    return tuple(phase for phase in found if phase is not None)


def _has_no_length(part: ScriptNode) -> bool:
    """Whether a phase is `pause: 0`, which Artillery leaves out; a text, `pause: "0"`, is a pause of no seconds there."""
    left_out = isinstance(part.value, dict) and type(part.get("pause")) is int and part.get("pause") == 0
    if left_out:
        part["pause"].warn("a pause of no length: it is left out")
    return left_out


def _phase(index: int, part: ScriptNode, mode: Any, *, poisson: bool, smooth: bool) -> model.Phase | None:
    if not part.expect(dict, "an object"):
        return None
    part.warn_unknown(keys.PHASE)
    is_pause = "pause" in part
    length = part["pause" if is_pause else "duration"]
    duration_s = seconds(length.value) if length.value is not ABSENT else None
    if length.value is ABSENT and length.path in part.notes.undefined:
        length.refuse(part.notes.undefined[length.path])
    elif length.value is ABSENT:
        part.refuse("a phase needs a `duration` (or a `pause`)")
    elif duration_s is None or duration_s < 0 or (duration_s == 0 and not is_pause):
        length.refuse(f"Invalid {'pause' if is_pause else 'duration'} for phase: {length.value}")
    elif duration_s > LONGEST_S:
        length.refuse(
            f"Invalid {'pause' if is_pause else 'duration'} for phase: {length.value} is longer than ten years"
        )
    rate, ramp_to = _amount(part["arrivalRate"], _HIGHEST_RATE), _amount(part["rampTo"], _HIGHEST_RATE)
    count, max_vusers = _amount(part["arrivalCount"]), _amount(part["maxVusers"])
    concurrency = _concurrency(part["concurrency"])
    _warn_of_contradictions(part)
    if max_vusers is not None and 1 < max_vusers != int(max_vusers):
        part["maxVusers"].warn(f"must be a whole number: {int(max_vusers)} is used")
    if max_vusers is not None and max_vusers < 1:
        part["maxVusers"].warn("leaves no place for a virtual user: every arrival is skipped")
    if count is not None and count != int(count):
        part["arrivalCount"].warn(f"must be a whole number: {int(count)} is used")
    if duration_s is None:
        return None
    nothing_to_do = not is_pause and count is None and not rate and ramp_to is None and concurrency is None
    if nothing_to_do:
        part.warn("no arrivals: neither arrivalRate nor arrivalCount nor rampTo; it is a pause")
    elif not is_pause and concurrency is None and not (count if count is not None else rate or ramp_to):
        part["rampTo" if count is None else "arrivalCount"].warn("is 0: no virtual user is started")
    return model.Phase(
        index=index,
        name=None if part.get("name") is None else str(part.get("name")),
        duration_s=duration_s,
        duration_text=duration_text(length.value),
        pause=is_pause or nothing_to_do,
        arrival_rate=rate or 0.0,
        arrival_count=None if count is None else int(count),
        ramp_to=ramp_to,
        max_vusers=None if max_vusers is None else int(max_vusers),
        poisson=poisson or (part.get("mode") or mode) == "poisson",
        smooth=smooth,
        concurrency=None if is_pause else concurrency,
    )


def _warn_of_contradictions(part: ScriptNode) -> None:
    """Warn of keys of a phase that another key makes useless."""
    if "pause" in part:
        for key in ("duration", "arrivalRate", "arrivalCount", "rampTo", "maxVusers", "concurrency", "mode"):
            if key in part:
                part[key].warn("has no effect: the phase is a `pause`")
    elif "concurrency" in part:
        for key in ("arrivalRate", "arrivalCount", "rampTo", "maxVusers", "mode"):
            if key in part:
                part[key].warn("has no effect: the phase has a `concurrency`")
    elif "arrivalCount" in part:
        for key in ("arrivalRate", "rampTo", "mode"):
            # `uniform` is how such users arrive anyway.
            if key in part and part.get(key) != "uniform":
                part[key].warn("has no effect: the phase has an `arrivalCount`")
    _warn_of_mode(part["mode"])


def _warn_of_mode(part: ScriptNode) -> None:
    if part.value is not ABSENT and part.value not in keys.PHASE_MODES:
        part.warn(f"no such mode: {part.value!r}; uniform is used", nearest(str(part.value), keys.PHASE_MODES))


def _concurrency(part: ScriptNode) -> int | None:
    """Return the number of users of a closed phase; None if it is absent or refused."""
    if part.value is ABSENT:
        return None
    users = to_number(part.value) if type(part.value) in (int, float, str) else 0
    if not 1 <= users < _MOST or users != int(users):
        part.refuse(f"must be a whole number of users, 1 or more, not {part.value!r}")
        return None
    return int(users)


def _amount(part: ScriptNode, most: float = _MOST) -> float | None:
    """Return a number of a phase, `most` at most, which may be given as text; None if it is absent or refused."""
    if part.value is ABSENT or part.value is None:
        return None
    amount = to_number(part.value)
    if not 0 <= amount < float("inf"):
        part.refuse(f"must be a number, 0 or more, not {part.value!r}")
        return None
    if amount > most:
        part.refuse(f"must be at most {most:,.0f}, not {part.value!r}")
        return None
    return amount


def payloads(part: ScriptNode, override: str | None, read_file: Callable[[str], bytes]) -> tuple[model.Payload, ...]:
    """Read `config.payload`, one object or a list. `override` is the path given with -p, for a single payload."""
    if part.value is ABSENT or part.value is None:
        return ()
    if not isinstance(part.value, dict | list):
        part.warn("is ignored: neither an object nor a list")
        return ()
    items = [part] if isinstance(part.value, dict) else list(part.parts())
    if override and len(items) == 1 and isinstance(part.value, dict) and part.get("path"):
        part["path"].warn("is ignored: -p names another file")
    found = (_payload(item, override if item is part else None, read_file) for item in items)
    return tuple(payload for payload in found if payload is not None)


def _payload(part: ScriptNode, override: str | None, read_file: Callable[[str], bytes]) -> model.Payload | None:
    if not part.expect(dict, "an object"):
        return None
    part.warn_unknown(keys.PAYLOAD)
    path = override or part.get("path")
    if not isinstance(path, str):
        part.refuse("no `path` here, and no file given with -p")
        return None
    if not (
        part["fields"].expect((list, type(None)), "a list") and part["options"].expect((dict, type(None)), "an object")
    ):
        return None
    name = part.get("name")
    everything = part.get("loadAll") is True
    if everything and not name:
        part.warn("loadAll needs a `name`: no variable is made")
    settings = _csv_settings(part)
    if settings is None:
        return None
    try:
        content = read_file(path)
        _warn_of_other_bytes(part["path"], path, content)
        table = content.decode("utf-8-sig", "replace")
        rows = read_rows(table, **settings)
        if settings["cast"]:
            _warn_of_lost_digits(part["path"], path, read_rows(table, **settings | {"cast": False}))
    except OSError as error:
        part["path"].refuse(f"cannot read {path}: {error.strerror or error}")
        return None
    except PayloadError as error:
        part["path"].refuse(f"{path}: {error}")
        return None
    fields = tuple(str(f) for f in part.get("fields") or ())
    _warn_of_fields(part, fields, rows)
    order = part.get("order") or "random"
    if order not in keys.PAYLOAD_ORDERS:
        part["order"].warn(
            f"no such order: {order!r}; rows are taken at random", nearest(str(order), keys.PAYLOAD_ORDERS)
        )
    order = "all" if everything else ("sequence" if order == "sequence" else "random")
    return None if everything and not name else model.Payload(rows, fields, order, name)


def _warn_of_other_bytes(part: ScriptNode, path: str, content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        part.warn(f"{path}: not UTF-8 (first in line {line}): such bytes are sent as the replacement character U+FFFD")


def _warn_of_fields(part: ScriptNode, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Warn of fields that have no column of their own, and of a heading that is taken for a row."""
    named = part["fields"]
    for name in dict.fromkeys(name for name in fields if fields.count(name) > 1):
        named.warn(f"`{name}` is there more than once: the last of these columns is its value")
    if rows and len(fields) > (columns := max(map(len, rows))):
        named.warn(f"the file has no column for `{fields[columns]}`: it has {columns}")
    elif (
        rows
        and fields
        and [str(cell).strip().lower() for cell in rows[0][: len(fields)]] == [f.lower() for f in fields]
    ):
        part.warn("the first line names the fields, and is a row like the others: `skipHeader: true` leaves it out")


def _warn_of_lost_digits(part: ScriptNode, path: str, rows: tuple[tuple[str, ...], ...]) -> None:
    long = next((cell for row in rows for cell in row if len(cell) >= 16 and loses_digits(cell)), None)
    if long is not None:
        part.warn(
            f"{path}: {long} is read as a number and loses its last digits, as in Artillery; `cast: false` keeps them"
        )


def _csv_settings(part: ScriptNode) -> dict[str, Any] | None:
    """Return the arguments of `read_rows` after the text; None if one of them is refused."""
    options = part.get("options") or {}
    for key in set(options) - set(keys.CSV_OPTIONS):
        part["options"][key].warn(f"the CSV option `{key}` is not supported")
    outer, inner, quote = part["delimiter"], part["options"]["delimiter"], part["options"]["quote"]
    delimiter = inner if inner.value else outer
    separates = _separates(delimiter, "a text that separates cells")
    if not (_separates(quote, "one character", longest=1) and separates):
        return None
    delimits, quotes = delimiter.value or ",", quote.value or '"'
    if delimits == quotes:
        delimiter.refuse("is the character that quotes cells, too")
        return None
    return {
        "delimiter": delimits,
        "quote": quotes,
        "skip_header": part.get("skipHeader") is True or options.get("from_line") == 2,
        "skip_empty_lines": truthy(options.get("skip_empty_lines", part.get("skipEmptyLines", True))),
        "trim": options.get("trim") is True,
        "cast": truthy(options.get("cast", part.get("cast", True))),
        "uneven": options.get("relax_column_count") is True,
    }


def _separates(part: ScriptNode, said: str, longest: int | None = None) -> bool:
    """Whether a character or text that has a meaning in CSV is absent, or can have it; else it is refused."""
    value = part.value
    if not value or (
        isinstance(value, str) and not set(value) & set("\r\n\0") and (longest is None or len(value) <= longest)
    ):
        return True
    part.refuse(f"must be {said}, without a line break, not {value!r}")
    return False


def tls(part: ScriptNode, *, insecure: bool, read_file: Callable[[str], bytes]) -> TlsSettings:
    """Read `config.tls` and -k. Certificates and keys are PEM texts, or names of files that hold them."""
    if part.value is not ABSENT and not part.expect(dict, "an object", strict=False):
        part = ScriptNode(ABSENT, part.path, part.notes)
    part.warn_unknown(keys.TLS)
    if "pfx" in part:
        part["pfx"].refuse("not supported; convert it to PEM files and name them as `cert` and `key`")
    texts = {name: _pem(part, names, read_file) for name, names in keys.TLS_TEXTS.items()}
    passphrase, server_name = part.get("passphrase"), part.get("servername")
    settings = TlsSettings(
        verify=not insecure and part.get("rejectUnauthorized", True) is not False,
        passphrase=None if passphrase is None else str(passphrase),
        server_name=str(server_name) if server_name else None,
        ca=texts["ca"],
        cert=texts["cert"],
        key=texts["key"],
    )
    if any(texts.values()):
        # Few scripts have certificates, and the others start quicker without TLS.
        from loadgen.http.tls_socket import client_context  # noqa: PLC0415

        try:
            client_context(settings)
        except ValueError as error:
            part.refuse(str(error))
    return settings


def _pem(part: ScriptNode, names: tuple[str, ...], read_file: Callable[[str], bytes]) -> bytes | None:
    given = next((part[name] for name in names if part.get(name)), None)
    if given is None or not given.expect(str, "a text"):
        return None
    if "-----BEGIN" in given.value:
        return bytes(given.value, "utf-8")
    try:
        return read_file(given.value)
    except OSError as error:
        given.refuse(f"cannot read {given.value}: {error.strerror or error}")
        return None


def http(config: ScriptNode, *, tls: TlsSettings, extended_metrics: bool) -> model.HttpSettings:
    """Read `config.http`, `config.defaults` and `config.timeout`."""
    part = config["http"]
    _warn_of_http(config, part)
    timeout = config["timeout"] if truthy(config.get("timeout")) else part["timeout"]
    timeout.expect((int, float, str), "a number or a text")
    timeout_s = to_number(timeout.value) if timeout.value is not ABSENT else 10.0
    if not timeout_s > 0:
        timeout.warn(f"must be a number of seconds above 0, not {timeout.value!r}: 10 is used")
        timeout_s = 10.0
    if timeout_s > LONGEST_S:
        timeout.warn(f"{timeout.value!r} seconds are more than ten years: {LONGEST_S} is used")
        timeout_s = LONGEST_S
    given_as_number = isinstance(timeout.value, int | float)
    pool = min(to_number(part.get("pool")), _MOST) if truthy(part.get("pool")) else None
    return model.HttpSettings(
        timeout_s=float(timeout_s),
        socket_limit_s=max(8.0, float(timeout_s)) if given_as_number else 8.0,
        pool=int(pool) if pool and pool >= 1 else None,
        tls=tls,
        extended_metrics=extended_metrics or part.get("extendedMetrics") is True,
        headers=_default(config, "headers"),
        cookies=_default(config, "cookie") or {},
        loose_cookies=part["cookieJarOptions"].get("looseMode") is True,
        strict_capture=part["defaults"].get("strictCapture") is not False
        and config["defaults"].get("strictCapture") is not False,
        think_jitter=(_default(config, "think") or {}).get("jitter"),
        tracing=_tracing(part["distributedTracing"]),
    )


def _warn_of_http(config: ScriptNode, part: ScriptNode) -> None:
    """Warn of what has no effect in `config.http` (`part`) and in `config.defaults`."""
    tracing, jar, tls_part = part["distributedTracing"], part["cookieJarOptions"], config["tls"]
    for section in (part, part["defaults"], config["defaults"], jar):
        if section.value is not None:
            section.expect(dict, "an object", strict=False)
    part.warn_unknown(keys.HTTP)
    jar.warn_unknown(keys.COOKIE_JAR)
    tracing.warn_unknown(("enabled", "sampled", "traceIdPrefix"))
    for flag in (part["extendedMetrics"], jar["looseMode"], tls_part["rejectUnauthorized"]):
        flag.expect(bool, "true or false, without quotes: it has no effect", strict=False)
    if not isinstance(tracing.value, dict):
        tracing.expect(bool, "true, false or an object: it has no effect", strict=False)
    for defaults in (part["defaults"], config["defaults"]):
        defaults.warn_unknown(keys.DEFAULTS)
        defaults["strictCapture"].expect(bool, "true or false, without quotes: it has no effect", strict=False)
        for name, field in defaults["headers"].items():
            warn_of_field(name, field)
        defaults["think"].warn_unknown(("jitter",))
        warn_of_jitter(defaults["think"]["jitter"])
    for key in ("headers", "cookie", "think"):
        if part["defaults"].get(key) is not None and key in config["defaults"]:
            config["defaults"][key].warn(f"has no effect: `config.http.defaults.{key}` replaces it")
    if truthy(config.get("timeout")) and "timeout" in part:
        part["timeout"].warn("has no effect: `config.timeout` replaces it")
    if "maxSockets" in part:
        part["maxSockets"].warn("has no effect (in Artillery neither); `pool` limits connections")
    if "pool" in part and not to_number(part.get("pool")) >= 1:
        part["pool"].warn(f"must be a number of connections, 1 or more, not {part.get('pool')!r}: it has no effect")


def warn_of_field(name: str, part: ScriptNode) -> None:
    """Warn of a header field that keeps every request from being sent; one that holds a template can be any."""
    try:
        field_lines(name.lower(), "" if "{{" in text(part.value) else part.value)
    except BadRequestError as error:
        part.warn(unsendable(error.name))


def unsendable(error: str) -> str:
    """What is said of a part of a request that cannot be sent; `error` is its name in the metrics."""
    return f"no request can be sent with it: the virtual user fails here with {error}"


def warn_of_jitter(part: ScriptNode) -> None:
    """Warn of a jitter that changes nothing: neither `20%` nor a number of milliseconds."""
    value = part.value
    if value in (ABSENT, None) or (isinstance(value, str) and "{{" in value):
        return
    if isinstance(value, bool) or not re.match(r"\s*\d", str(value)):
        part.warn(f"has no effect: a jitter is `20%` or a number of milliseconds, not {value!r}")


def _default(config: ScriptNode, key: str) -> Mapping[str, Any] | None:
    """Return `config.http.defaults.<key>`, or `config.defaults.<key>` where the first is absent."""
    for holder in (config["http"]["defaults"], config["defaults"]):
        if holder.get(key) is not None and holder[key].expect(dict, "an object", strict=False):
            found: Mapping[str, Any] = holder.get(key)
            return found
    return None


def _tracing(part: ScriptNode) -> model.Tracing | None:
    if part.value is True:
        return model.Tracing()
    if not isinstance(part.value, dict) or part.get("enabled") is False:
        return None
    prefix = "".join(c for c in str(part.get("traceIdPrefix", "")).lower() if c in "0123456789abcdef")[:8]
    return model.Tracing(part.get("sampled", True) is not False, prefix or "a9")


def warn_of_unknown_plugins(plugins: ScriptNode) -> None:
    """Warn of plugins that this program does not have: they have no effect."""
    for name, part in plugins.items():
        if name not in _PLUGINS:
            part.warn(f"plugin {name} is not available; the run goes on without it")


def expect_plugin(plugins: ScriptNode) -> model.ExpectPlugin | None:
    """Read the options of the expect plugin; None if it is not listed."""
    if "expect" not in plugins:
        return None
    part = plugins["expect"]
    output = part.get("formatter") or part.get("outputFormat") or "pretty"
    if output not in keys.EXPECT_OUTPUTS:
        part.warn(f"unknown output format {output!r}: pretty is used")
        output = "pretty"
    return model.ExpectPlugin(
        output,
        truthy(part.get("reportFailuresAsErrors")),
        part.get("expectDefault200") in (True, "true"),
        part.get("useOnlyRequestNames") in (True, "true"),
    )


def endpoint_metrics(plugins: ScriptNode) -> model.EndpointMetrics:
    """Read the options of metrics-by-endpoint; where it is listed, its defaults are off."""
    part = plugins["metrics-by-endpoint"]
    if not truthy(part.value):
        return model.EndpointMetrics()
    return model.EndpointMetrics(
        namespace=part.get("metricsNamespace") or ENDPOINT,
        only_request_names=truthy(part.get("useOnlyRequestNames")),
        strip_query=truthy(part.get("stripQueryString")),
        ignore_unnamed=truthy(part.get("ignoreUnnamedRequests")),
        group_dynamic_urls=part.get("groupDynamicURLs") is None or truthy(part.get("groupDynamicURLs")),
    )


def hidden_metrics(plugins: ScriptNode) -> tuple[str, ...]:
    """Return the metrics that the console leaves out: those of plugins that suppress their output, and of metrics-by-endpoint
    unless it is listed.
    """
    names = [name for name, part in plugins.items() if truthy(part.get("suppressOutput"))]
    if not truthy(plugins.get("metrics-by-endpoint")):
        names.append("metrics-by-endpoint")
    return tuple(f"plugins.{name}" for name in names)


def apdex_threshold_ms(config: ScriptNode) -> float | None:
    """Read the threshold T of the apdex plugin, in ms; None if it is not listed."""
    if "apdex" not in config["plugins"]:
        return None
    for part in (config["apdex"]["threshold"], config["plugins"]["apdex"]["threshold"]):
        if part.value is not ABSENT and part.value is not None:
            threshold_ms = to_number(part.value)
            if 0 < threshold_ms < float("inf"):
                return float(threshold_ms)
            part.warn(f"must be a number of milliseconds above 0, not {part.value!r}: {_APDEX_MS:.0f} is used")
            break
    return _APDEX_MS


def ensure_checks(config: ScriptNode, *, disabled: bool) -> tuple[model.Check, ...] | None:
    """Read the checks of the ensure plugin; None if it is not listed or is switched off."""
    if "ensure" not in config["plugins"]:
        if truthy(config.get("ensure")):
            config["ensure"].warn("does nothing: the ensure plugin is not listed under config.plugins")
        return None
    inner = config["plugins"]["ensure"]
    part = config["ensure"] if truthy(config.get("ensure")) else inner
    if part is not inner and isinstance(inner.value, dict):
        for key, other in inner.items():
            if key in keys.ENSURE:
                other.warn("has no effect: `config.ensure` replaces it")
    return None if disabled else checks_of(part)


def fake_data(config: ScriptNode) -> Mapping[str, Any] | None:
    """Read the options of the fake-data plugin, by function; None if it is not listed."""
    if "fake-data" not in config["plugins"]:
        return None
    options = config.get("fake-data") or config["plugins"].get("fake-data")
    return options if isinstance(options, dict) else {}
