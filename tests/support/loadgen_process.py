"""`loadgen run` as a process of its own: a script for it, and the report it wrote."""

from reports.formats.artillery_json import from_json


def script(server, phases, flow=None, **config):
    flow = flow or [{"get": {"url": "/"}}]
    return {"config": {"target": server.url, "phases": phases, **config}, "scenarios": [{"flow": flow}]}


def report_of(tmp_path):
    return from_json((tmp_path / "out.json").read_text("utf-8"))
