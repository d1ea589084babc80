"""Puts the tool's modules into its wheel, in the folder `poolbench_tool/tree`.

This is a hook because the setting `force-include` would also copy the modules into an editable installation, which finds
them in the checkout.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TREE = ("app.py", "openapi.json", "templates", "db", "loadgen", "poolbench", "reports", "wsgi")


class TreeHook(BuildHookInterface):
    """Called by hatchling while it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the tree to a wheel that is not an editable one."""
        if version != "editable":
            root = Path(self.root)
            build_data["force_include"] |= {str(root / name): f"poolbench_tool/tree/{name}" for name in TREE}
