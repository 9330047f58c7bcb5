"""The search layer: a file that names a pipeline, a space and a metric becomes an Optuna study of many runs."""
