"""Several processes that share the tasks of a run: how they start, agree, and end together."""
