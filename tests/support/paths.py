"""Where the checkout keeps what tests need."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "tests" / "golden"
