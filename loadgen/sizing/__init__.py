"""How big should the pool be: measured by running sizes against rates, and predicted from one measured run."""
