"""Reads Artillery v2 scripts: text in, a checked `Script` out, or a list of all its problems with their places.

A script is refused for what `artillery run` refuses before it starts, for what this program cannot run (JavaScript, other
engines), and for a few things that would never end. Everything else that Artillery tolerates is a warning.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from random import Random
from typing import Any

from loadgen.http.message import BadRequestError, address_of
from loadgen.http.proxy import ProxyError, ProxyRoute
from loadgen.http.response import MAX_BODY_BYTES
from loadgen.http.route import Route
from loadgen.language.template import compile_template, functions, placeholders
from loadgen.language.values import UNDEFINED, get_path, integer, text
from loadgen.script import config as sections
from loadgen.script import keys, model, publish
from loadgen.script.document import ABSENT, Notes, ScriptNode, document, merged, nearest
from loadgen.script.flow import FlowReader
from loadgen.script.idle import warn_of_idle_parts
from loadgen.script.model import Place, Script, ScriptErrors, ScriptProblem
from loadgen.script.placeholders import Names, complaints, set_by, variables_of, warn_of_steps, warn_of_texts
from loadgen.script.processor import Processor, ProcessorError, load
from loadgen.script.yaml_reader import YamlDocument, child_path, read_yaml

_EXTENSIONS = (".yml", ".yaml", ".json")
_DEBUG = re.compile(r"(^|[\s,])(\*|http(:\*|:request|:response)?)([\s,]|$)")
_NO_TARGET = "No target specified and no environment chosen"
_VU_TEMPLATES = {
    ("http", "defaults", "headers"),
    ("http", "defaults", "cookie"),
    ("defaults", "headers"),
    ("defaults", "cookie"),
}
"""Parts of `config` in which virtual users fill in the variables that are unknown before the run."""
_NOTHING_SETS = "nothing sets"
_ONCE = " before the run, when templates in config are filled in"
_ONE_VU = {"duration": 1, "arrivalCount": 1}

_MISPLACED = {
    **dict.fromkeys(("thresholds", "conditions", "maxErrorRate"), "config.ensure"),
    **dict.fromkeys(("arrivalRate", "arrivalCount", "rampTo", "maxVusers", "duration", "pause", "concurrency"), "config.phases"),
    **dict.fromkeys(("pool", "maxSockets", "extendedMetrics", "distributedTracing", "cookieJarOptions"), "config.http"),
    **dict.fromkeys(("headers", "cookie", "strictCapture"), "config.http.defaults"),
    "rejectUnauthorized": "config.tls",
    "jitter": "config.http.defaults.think",
    "think": "scenarios[].flow",
}  # fmt: skip
"""Where keys belong that are often written at the top of a script, of `config` or of a scenario, without effect there."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the command line that change the script; texts are as typed."""

    target: str | None = None
    environment: str | None = None
    variables: str | None = None
    """The text of a JSON object."""
    overrides: str | None = None
    """The text of a JSON object."""
    config_file: str | None = None
    """The path given with -c, which is among the sources."""
    payload: str | None = None
    insecure: bool = False
    solo: bool = False
    scenario_name: str | None = None
    poisson: bool = False
    smooth_ramps: bool = False
    skip_unsupported: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    """The environment of the process, with that of dotenv files."""
    directory: str = "."
    """The directory that relative paths of the sources refer to."""
    test_id: str = ""
    max_body_mb: float = MAX_BODY_BYTES / 2**20
    """The most that is kept of a body, in MB of 2**20 bytes."""
    drain_s: float = 60.0
    """How long an answer may go on after the plan's last arrival, in seconds; 0 for without end."""


def parse_script(
    sources: Iterable[tuple[str, str]],
    options: RunOptions,
    read_file: Callable[[str], bytes],
    rng: Random | None = None,
) -> Script:
    """Build the script from `(path, text)` sources, later ones over earlier ones, and options.

    Raises ScriptErrors, which holds all problems at once.

    `read_file` gets paths of payloads and uploads, absolute or relative to `options.directory`, and may raise OSError.
    `rng` decides the random numbers of templates in `config`.
    """
    files = list(sources)
    value, places = document(_read(files))
    notes = Notes(places)
    if not isinstance(value, Mapping):
        raise ScriptErrors((ScriptProblem(notes.place(""), "a script is an object with `config` and `scenarios`"),))
    if "config" not in value and "aggregate" in value:
        raise ScriptErrors((ScriptProblem(notes.place(""), "a report, not a script: `loadgen report` shows it"),))
    parser = _ScriptParser(files[0][0], options, notes, read_file, rng or Random())
    try:
        script = parser.script(value)
    # Files are refused for this before; --overrides and -v may still be nested too deeply.
    except RecursionError:
        raise ScriptErrors((ScriptProblem(Place(files[0][0], 0, 0, ""), "the script is nested too deeply"),)) from None
    if notes.problems or script is None:
        raise ScriptErrors(_in_order(notes.problems), _in_order(notes.warnings))
    return replace(script, source="\n".join(text for _, text in files))


def _in_order(problems: list[ScriptProblem]) -> tuple[ScriptProblem, ...]:
    """The problems in the order of the files, each of them once."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.place.file, p.place.line, p.place.column)))


def _read(files: list[tuple[str, str]]) -> Iterable[YamlDocument]:
    problems: list[ScriptProblem] = []
    found = []
    for path, content in files:
        if not path.lower().endswith(_EXTENSIONS):
            place = Place(path, 0, 0, "")
            problems.append(
                ScriptProblem(
                    place, "unknown file type: scripts are .yml, .yaml or .json (JavaScript is not supported)"
                )
            )
            continue
        try:
            source = read_yaml(path, content)
        except ScriptErrors as error:
            problems += error.problems
            continue
        if not isinstance(source.value, Mapping):
            problems.append(ScriptProblem(Place(path, 1, 1, ""), "a script is an object with `config` and `scenarios`"))
        found.append(source)
    if problems:
        raise ScriptErrors(tuple(problems))
    return found


class _ScriptParser:
    def __init__(
        self, script_file: str, options: RunOptions, notes: Notes, read_file: Callable[[str], bytes], rng: Random
    ) -> None:
        self._file = script_file
        self._options = options
        self._notes = notes
        self._rng = rng
        self._folder = posixpath.dirname(posixpath.join(options.directory, script_file))
        self._read_file = read_file
        self._root = ScriptNode({}, "", notes)

    def _read_beside(self, path: str) -> bytes:
        """Read a file whose name is relative to the script. Raises OSError."""
        try:
            return self._read_file(posixpath.normpath(posixpath.join(self._folder, path)))
        # The name holds a character that no file name can hold.
        except ValueError as error:
            raise OSError(str(error)) from None

    def script(self, value: Mapping[str, Any]) -> Script | None:
        """Build the script, or return None if it has problems; problems and warnings go to `notes`."""
        options = self._options
        given = self._json_option("--variables", options.variables)
        value = self._with_options(value, given)
        root = self._root = ScriptNode(value, "", self._notes)
        root.warn_unknown(keys.ROOT, only_similar=True)
        config = ScriptNode(self._filled(value["config"], given), "config", self._notes)
        config.warn_unknown(keys.CONFIG, only_similar=True)
        root.warn_misplaced(_MISPLACED | dict.fromkeys(keys.CONFIG, "config"))
        config.warn_misplaced(_MISPLACED)
        for name in ("variables", "environments", "plugins", "apdex", "fake-data"):
            if config.get(name) is not None:
                config[name].expect(dict, "an object: it has no effect", strict=False)
        target = self._target(config)
        plugins = config["plugins"]
        sections.warn_of_unknown_plugins(plugins)
        processor = self._processor(config)
        reader = FlowReader(
            self._read_beside, processor, skip_unsupported=options.skip_unsupported, expect_listed="expect" in plugins
        )
        scenarios = self._scenarios(root, config, reader)
        if processor is None:
            self._note_processor(config)
        self._warn_of_placeholders(root, config, processor)
        warn_of_idle_parts(root, config)
        gateways, collectors = publish.receivers(plugins["publish-metrics"], self._read_beside)
        return Script(
            target=target,
            phases=self._phases(config),
            scenarios=scenarios,
            before=self._section(root["before"], config, reader),
            after=self._section(root["after"], config, reader),
            variables=config.get("variables") if isinstance(config.get("variables"), dict) else {},
            built_ins={"target": target, **self._built_ins()},
            payloads=sections.payloads(config["payload"], self._payload_option(), self._read_beside),
            http=replace(
                sections.http(
                    config,
                    tls=sections.tls(config["tls"], insecure=options.insecure, read_file=self._read_beside),
                    extended_metrics=bool(options.env.get("ARTILLERY_EXTENDED_HTTP_METRICS")),
                ),
                max_body_bytes=int(options.max_body_mb * 2**20),
                drain_s=options.drain_s,
            ),
            endpoint_metrics=sections.endpoint_metrics(plugins),
            expect=sections.expect_plugin(plugins),
            apdex_threshold_ms=sections.apdex_threshold_ms(config),
            ensure=sections.ensure_checks(config, disabled="ARTILLERY_DISABLE_ENSURE" in options.env),
            fake_data=sections.fake_data(config),
            gateways=gateways,
            collectors=collectors,
            hidden_metrics=sections.hidden_metrics(plugins),
            processor=processor,
            proxies=self._proxies(),
            debug=bool(_DEBUG.search(options.env.get("DEBUG", ""))),
            warnings=_in_order(self._notes.warnings),
        )

    def _payload_option(self) -> str | None:
        """Return the path given with -p, which is relative to the working directory, not to the script."""
        path = self._options.payload
        return None if path is None else posixpath.abspath(posixpath.join(self._options.directory, path))

    def _option_problem(self, option: str, message: str) -> None:
        self._notes.problems.append(ScriptProblem(Place(option, 0, 0, ""), message))

    def _json_option(self, option: str, typed: str | None) -> dict[str, Any]:
        if typed is None:
            return {}
        try:
            value = json.loads(typed, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            self._option_problem(option, f"not JSON: {error}")
            return {}
        if not isinstance(value, dict):
            self._option_problem(option, "must be a JSON object")
            return {}
        return value

    def _with_options(self, value: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the options to the document in Artillery's order: environment, -t, --overrides, -v."""
        options = self._options
        config = value.get("config")
        if config is not None and not isinstance(config, Mapping):
            self._notes.problems.append(ScriptProblem(self._notes.place("config"), "must be an object"))
        config = dict(config) if isinstance(config, Mapping) else {}
        if options.environment:
            environments = config.get("environments")
            chosen = environments.get(options.environment) if isinstance(environments, Mapping) else None
            if isinstance(chosen, Mapping):
                config = merged(config, chosen)
            else:
                message = f"environment {options.environment} is set but is not defined in the script"
                self._notes.warnings.append(ScriptProblem(self._notes.place("config"), message))
        if options.target:
            config["target"] = options.target
        out = merged(
            {**value, "config": config}, self._json_option("--overrides", options.overrides), replace_lists=True
        )
        if not isinstance(out["config"], Mapping):
            self._option_problem("--overrides", "`config` must be an object")
            out["config"] = config
        if given:
            variables = out["config"].get("variables")
            out["config"] = {
                **out["config"],
                "variables": {**(variables if isinstance(variables, Mapping) else {}), **given},
            }
        return dict(out)

    def _built_ins(self) -> dict[str, Any]:
        options = self._options
        folder = posixpath.dirname(self._file) or "."
        if options.config_file is not None:
            folder = posixpath.dirname(posixpath.abspath(posixpath.join(options.directory, options.config_file)))
        return {
            "$environment": options.environment or UNDEFINED,
            "$processEnvironment": dict(options.env),
            "$env": dict(options.env),
            "$testId": options.test_id,
            "$dirname": folder,
            "$scenarioFile": posixpath.abspath(posixpath.join(options.directory, self._file)),
        }

    def _filled(self, config: Any, given: Mapping[str, Any]) -> Any:
        """Fill in the templates of `config`, once for the whole run."""
        variables = {**self._built_ins(), **given}
        calls = functions(self._rng)

        names = Names(
            frozenset(given), frozenset(calls), self._options.env, named_environment=bool(self._options.environment)
        )

        def fill(value: Any, path: tuple[str | int, ...]) -> Any:
            if isinstance(value, Mapping):
                return {k: v for k, inner in value.items() if (v := fill(inner, (*path, k))) is not UNDEFINED}
            if isinstance(value, list):
                return [None if (v := fill(inner, (*path, i))) is UNDEFINED else v for i, inner in enumerate(value)]
            if not isinstance(value, str) or "{{" not in value:
                return value
            if path[:-1] in _VU_TEMPLATES and _is_for_vus(value, variables):
                return value
            part = ScriptNode(value, reduce(child_path, path, "config"), self._notes)
            filled = compile_template(value, calls).render(variables)
            for said in complaints(value, names):
                part.warn(f"{said}{_ONCE if _NOTHING_SETS in said else ''}")
                if filled is UNDEFINED:
                    self._notes.undefined[part.path] = said
            return filled

        return fill(config, ())

    def _warn_of_placeholders(self, root: ScriptNode, config: ScriptNode, processor: Processor | None) -> None:
        """Warn of placeholders in steps and in default headers and cookies that no virtual user can fill in."""
        options = self._options
        calls = {
            *functions(self._rng),
            *_fake_names(sections.fake_data(config), self._rng),
            *(() if processor is None else processor.template_functions),
        }
        source = processor.source.decode("utf-8", "replace") if processor is not None else ""
        names = Names(
            frozenset(variables_of(config.value)),
            frozenset(calls),
            options.env,
            named_environment=bool(options.environment),
            source=source,
        )
        before = root["before"]["flow"]
        warn_of_steps(before, names)
        names = names.with_variables(set_by(before))
        everywhere = names
        for part in root["scenarios"].parts():
            warn_of_steps(part["flow"], names)
            everywhere = everywhere.with_variables(set_by(part["flow"]))
        warn_of_steps(root["after"]["flow"], names)
        for holder in (config["http"]["defaults"], config["defaults"]):
            for key in ("headers", "cookie"):
                warn_of_texts(holder[key], everywhere)

    def _target(self, config: ScriptNode) -> str:
        target = config["target"]
        if target.value in (ABSENT, None, ""):
            why = self._notes.undefined.get(target.path)
            (config if why is None else target).refuse(_NO_TARGET if why is None else why)
            return ""
        if not target.expect(str, "a text"):
            return ""
        try:
            address_of(target.value)
        except BadRequestError:
            target.warn("no request can be sent there: it must begin with http:// or https:// and name a host")
        return str(target.value)

    def _phases(self, config: ScriptNode) -> tuple[model.Phase, ...]:
        part = config["phases"]
        if self._options.solo or part.value is ABSENT:
            part = ScriptNode([_ONE_VU], part.path, self._notes)
        return sections.phases(
            part, mode=config["mode"], poisson=self._options.poisson, smooth=self._options.smooth_ramps
        )

    def _scenarios(self, root: ScriptNode, config: ScriptNode, reader: FlowReader) -> tuple[model.Scenario, ...]:
        part = root["scenarios"]
        if part.value is ABSENT:
            root.refuse("`scenarios` is missing")
            return ()
        if not part.expect(list, "a list"):
            return ()
        found = [self._scenario(i, item, config, reader) for i, item in enumerate(part.parts())]
        scenarios = [s for s in found if s is not None]
        if not scenarios:
            if not self._notes.problems:
                part.refuse("there is no scenario to run")
            return ()
        if self._options.scenario_name is not None:
            return self._chosen(scenarios, self._options.scenario_name)
        if not sum(s.weight for s in scenarios):
            part.refuse("every scenario has weight 0")
        return tuple(scenarios)

    def _scenario(self, index: int, part: ScriptNode, config: ScriptNode, reader: FlowReader) -> model.Scenario | None:
        if not part.expect(dict, "an object"):
            return None
        part["name"].expect(str, "a text")
        if not self._speaks_http(part, config, reader):
            return None
        part.warn_misplaced(_MISPLACED)
        flow = part["flow"]
        if flow.value is ABSENT:
            self._refuse_without_flow(part)
            return None
        if not flow.expect(list, "a list of steps"):
            return None
        name = part.get("name")
        return model.Scenario(
            index,
            str(name) if name else None,
            self._weight(part["weight"], config),
            reader.flow(part),
            reader.called(part, "onError"),
        )

    def _refuse_without_flow(self, part: ScriptNode) -> None:
        """Say which key was meant, or, where the next element of the list is a flow alone, that one dash is too many."""
        for key, inner in part.items():
            if key not in keys.SCENARIO and (nearest(key, ("flow",)) or isinstance(inner.value, list)):
                inner.refuse("`flow` is missing", "flow")
                return
        following = self._after(part)
        if following is not None and set(following.value) <= {"flow"}:
            following.refuse("`flow` stands in an element of its own: without its dash it belongs to the one before")
            return
        part.refuse("`flow` is missing")

    def _after(self, part: ScriptNode) -> ScriptNode | None:
        """Return the scenario behind this one in the list."""
        elements = list(self._root["scenarios"].parts())
        at = next((i for i, each in enumerate(elements) if each.path == part.path), len(elements))
        following = elements[at + 1] if at + 1 < len(elements) else None
        return following if following is not None and isinstance(following.value, Mapping) else None

    def _speaks_http(self, part: ScriptNode, config: ScriptNode, reader: FlowReader) -> bool:
        engine = part.get("engine") or config.get("engine") or "http"
        if engine != "http":
            where = part["engine"] if part.get("engine") else part
            reader.unsupported(where, f"the engine {engine!r}", "Only HTTP scenarios can be run")
        return bool(engine == "http")

    def _weight(self, part: ScriptNode, config: ScriptNode) -> int:
        if part.value is ABSENT:
            return 1
        variables = config.get("variables") if isinstance(config.get("variables"), dict) else {}
        known = {k: self._rng.choice(v) if isinstance(v, list) and v else v for k, v in variables.items()}
        value = compile_template(part.value, functions(self._rng)).render({**self._built_ins(), **known})
        match = re.match(r"\s*[+-]?\d+", text(value))
        if not match:
            part.warn("is not a whole number: the scenario has weight 0")
        return max(0, int(min(float(match.group()), 2**53))) if match else 0

    def _chosen(self, scenarios: list[model.Scenario], wanted: str) -> tuple[model.Scenario, ...]:
        try:
            pattern = re.compile(wanted)
        except (re.error, OverflowError, RecursionError):
            pattern = re.compile(re.escape(wanted))
        found = [s for s in scenarios if (s.name or "undefined") == wanted or pattern.search(s.name or "undefined")]
        if len(found) == 1:
            only = found[0]
            return (replace(only, weight=1),)
        how_many = "no scenario matches" if not found else "several scenarios match"
        self._option_problem("--scenario-name", f"{how_many} {wanted!r}")
        return ()

    def _section(self, part: ScriptNode, config: ScriptNode, reader: FlowReader) -> tuple[model.Step, ...]:
        if part.value is ABSENT or part.value is None:
            return ()
        if not part.expect(dict, "an object with a `flow`") or not self._speaks_http(part, config, reader):
            return ()
        reader.called(part, "onError")
        if part["flow"].value is ABSENT:
            self._refuse_without_flow(part)
        return reader.flow(part) if part["flow"].expect(list, "a list of steps") else ()

    def _processor(self, config: ScriptNode) -> Processor | None:
        """Load the Python processor. None if there is none or it is JavaScript; its path is empty if it could not be loaded."""
        part = config["processor"]
        if not isinstance(part.value, str) or not part.value.endswith(".py"):
            return None
        try:
            path = posixpath.normpath(posixpath.join(self._folder, part.value))
            return load(path, self._read_beside(part.value))
        except OSError as error:
            part.refuse(f"cannot read {part.value}: {error.strerror or error}")
        except ProcessorError as error:
            part.refuse(str(error))
        return Processor("", b"", {})

    def _proxies(self) -> dict[str, str]:
        found = {name: self._options.env[name] for name in ("HTTP_PROXY", "HTTPS_PROXY") if self._options.env.get(name)}
        try:
            ProxyRoute(found, Route())
        except ProxyError as error:
            self._option_problem("environment", str(error))
        return found

    def _note_processor(self, config: ScriptNode) -> None:
        if config.get("processor") and not self._notes.problems and not self._notes.skipped:
            config["processor"].warn("JavaScript is not run; nothing in the script calls it")


def _integer(digits: str) -> int | float:
    """Read an integer of JSON, which may be negative."""
    size = integer(digits.removeprefix("-"))
    return -size if digits.startswith("-") else size


def _is_for_vus(value: str, variables: Mapping[str, Any]) -> bool:
    return any(get_path(variables, path) is UNDEFINED for path in placeholders(value))


def _fake_names(options: Mapping[str, Any] | None, rng: Random) -> Iterable[str]:
    """The names of the template functions of the fake-data plugin with these options; none without the plugin."""
    if options is None:
        return ()
    # Few scripts need it, and its library takes long to import.
    from loadgen.language.fakes import fake_functions  # noqa: PLC0415

    return fake_functions(options, rng)
