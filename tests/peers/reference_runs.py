"""Reference scripts and what a run of one is reduced to, so that two programs' runs can be compared word by word.

The first line of a script says how it is run: `# run --quiet SCRIPT`, with these words filled in: SCRIPT, TARGET, TLS (the
target's https address), DIR (the scripts' folder), OUT (a JSON report). What differs from run to run is taken out: times,
ports, random boundaries and ids.
"""

import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from tests.peers.recording_target import RecordingTarget
from tests.support import certificates
from tests.support.paths import GOLDEN

SCRIPTS = GOLDEN / "artillery"
_OWN_FIELDS = ("host", "content-length", "transfer-encoding", "traceparent")
_AGENTS = re.compile(r"^(Artillery \(|got \(|poolbench/)")


def scripts():
    return sorted(p for p in SCRIPTS.glob("*.yml") if not p.stem.startswith("_"))


def tls_files(folder):
    """Certificates for the target, made anew in that folder."""
    return certificates.make(Path(folder))


def run_case(script, command, environment, tls, timeout_s=60):
    """Run one script with a program; what it did, reduced."""
    target = RecordingTarget(tls.server_context("self-signed"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        words = {
            "SCRIPT": str(script),
            "TARGET": f"http://127.0.0.1:{target.port}",
            "TLS": f"https://127.0.0.1:{target.tls_port}",
            "DIR": str(SCRIPTS),
            "OUT": str(out),
            "PLAIN": str(target.port),
            "PHASE": "2",
        }
        line = script.read_text().split("\n", 1)[0].removeprefix("# ")
        arguments = [_filled(word, words) for word in shlex.split(line)]
        try:
            done = subprocess.run(
                [*command, *arguments], env={**environment, **words, "HOME": folder, "TZ": "UTC"}, cwd=folder,
                capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        finally:
            target.close()
        report = json.loads(out.read_text())["aggregate"] if out.exists() else None
    return {
        "exit_code": done.returncode,
        "console": [] if report is None else console(_plain(done.stdout, words, target)),
        "counters": None if report is None else _counters(report["counters"], words, target),
        "summaries": None if report is None else _counts(report["summaries"], words, target),
        "rates": None if report is None else sorted(report["rates"]),
        "connections": target.connections,
        "asked": asked(target, words),
    }


def _filled(word, words):
    for name, value in words.items():
        word = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), word)
    return word


def _plain(text, words, target):
    text = text.replace(f"127.0.0.1:{target.port}", "TARGET").replace(str(SCRIPTS), "DIR")
    text = text.replace(words["OUT"], "OUT")
    return re.sub(rf"\b({target.port}|{target.tls_port})\b", "PORT", text)


def _counters(counters, words, target):
    return {_plain(name, words, target): n for name, n in sorted(counters.items()) if name != "http.downloaded_bytes"}


def _counts(summaries, words, target):
    return {_plain(name, words, target): s["count"] for name, s in sorted(summaries.items()) if s["min"] is not None}


def console(text):
    """The console without periodic reports and without figures that vary."""
    text = re.sub(r"(?s)-{38}\nMetrics for period to:.*?\n\n\n", "", text)
    text = re.sub(r"^Test run id: \S+", "Test run id: ID", text)
    text = re.sub(r"\d\d:\d\d:\d\d\([+-]\d{4}\)", "TIME", text)
    text = re.sub(r"Total time: .*", "Total time: TIME", text)
    text = re.sub(r"\bt\w{4}_\w{29}_\w{4}\b", "ID", text)
    text = re.sub(r"(?m)^(\[1\] )?WARNING: .*\n?", "", text)  # ours go to stderr
    text = re.sub(r"\S+@\S+", "EMAIL", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"(?i)(date: ).* GMT", r"\1DATE", text)
    rows = "response_time|session_length|server-timing|http\\.(dns|tcp|tls|total)|downloaded_bytes|request_rate"
    out, hidden = [], False
    for line in text.split("\n"):
        if re.match(r"  (min|max|mean|median|p95|p99): \.+ ", line) and hidden:
            out.append(re.sub(r" [^ ]+$", " N", line))
            continue
        hidden = bool(re.search(rf"({rows}).*:( \.+ .*)?$", line))
        out.append(re.sub(r" [\d.]+(/sec)?$", r" N\1", line) if hidden else line)
    return "\n".join(out).rstrip("\n").split("\n")


def asked(target, words):
    """What the target saw: the requests of each connection in order; the connections sorted by these."""
    out = []
    for request in target.asked:
        fields = {name: values for name, values in sorted(request["fields"].items()) if _kept(name, values)}
        body, fields = _without_boundary(request["body"], fields)
        flat = {n: [_plain(v, words, target) for v in vs] for n, vs in fields.items()}
        out.append({
            "method": request["method"], "target": _plain(request["target"], words, target), "fields": flat,
            "body": _plain(body, words, target), **({"tls": True} if request["tls"] else {}),
        })  # fmt: skip
    by_connection = {}
    for request, reduced in zip(target.asked, out, strict=True):
        by_connection.setdefault(request["connection"], []).append(reduced)
    return sorted(by_connection.values(), key=json.dumps)


def _kept(name, values):
    if name == "user-agent":
        return not _AGENTS.match(values[0])
    if name == "accept-encoding":
        return not values[0].startswith("gzip, deflate")
    return name not in _OWN_FIELDS


def _without_boundary(body, fields):
    found = re.search(r"boundary=(\S+)", "".join(fields.get("content-type", [])))
    if not found:
        return body, fields
    kind = fields["content-type"][0].replace(found[1], "BOUNDARY")
    return body.replace(found[1], "BOUNDARY"), {**fields, "content-type": [kind]}
