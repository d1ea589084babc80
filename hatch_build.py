"""What the tool's wheel holds beside its door: the tool's modules, in the folder `poolbench_tool/tree`.

A hook, since the setting `force-include` would also copy them into an editable installation, which finds them in the checkout.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TREE = ("app.py", "openapi.json", "db", "loadgen", "poolbench", "reports", "wsgi")


class TreeHook(BuildHookInterface):
    """Called by hatchling while it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the tree to a wheel that is not an editable one."""
        if version != "editable":
            root = Path(self.root)
            build_data["force_include"] |= {str(root / name): f"poolbench_tool/tree/{name}" for name in TREE}
