"""Reports as text: what reads other tools' formats and ours, and what writes them."""
