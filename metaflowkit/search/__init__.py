"""The search layer: a file that names a pipeline, a space and a metric becomes an Optuna study of many runs."""

STORAGE_VARIABLE = "METAFLOWKIT_STORAGE"
"""The environment variable with a database's URL, for what must not stand in a command."""
