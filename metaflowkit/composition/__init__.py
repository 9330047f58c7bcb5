"""From a pipeline to the objects that run it."""
