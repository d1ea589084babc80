"""Several generators that share one plan: forked processes, and workers of a Dask cluster."""
