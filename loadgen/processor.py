"""What a script's Python functions (`config.processor`) may import, under a name that will not change: see docs/processor.md."""

from loadgen.script.processor import Fail, Request, Response, Timings, User, template_function

__all__ = ["Fail", "Request", "Response", "Timings", "User", "template_function"]
