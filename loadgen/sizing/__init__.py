"""How big the pool should be: measured by running sizes at given rates, and predicted from one measured run."""
