"""How large the pool should be: measured by running sizes at given rates, or predicted from one measured run."""
