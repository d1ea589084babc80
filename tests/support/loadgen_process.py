"""`loadgen run` as a process of its own: a script for it, what it said, and the report it wrote."""

from reports.formats.artillery_json import from_json


def script(server, phases, flow=None, **config):
    flow = flow or [{"get": {"url": "/"}}]
    return {"config": {"target": server.url, "phases": phases, **config}, "scenarios": [{"flow": flow}]}


def report_of(tmp_path):
    return from_json((tmp_path / "out.json").read_text("utf-8"))


def apart_from_a_busy_machine(stderr):
    """The lines of a run's stderr without its warnings that this machine was too busy for the plan, which any run may have."""
    busy = ("Warning: arrivals started late", "Warning: the generator used")
    return [line for line in stderr.splitlines() if not line.startswith(busy)]
