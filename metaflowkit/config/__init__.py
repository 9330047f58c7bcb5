"""From text to checked values: YAML, the schema, the components that a file may name. Nothing here needs torch."""
