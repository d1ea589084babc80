"""`loadgen run` as a process of its own: a script for it, the report it wrote, and whether it still lives."""

from pathlib import Path

from reports.formats.artillery_json import from_json


def script(server, phases, flow=None, **config):
    flow = flow or [{"get": {"url": "/"}}]
    return {"config": {"target": server.url, "phases": phases, **config}, "scenarios": [{"flow": flow}]}


def report_of(tmp_path):
    return from_json((tmp_path / "out.json").read_text("utf-8"))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
