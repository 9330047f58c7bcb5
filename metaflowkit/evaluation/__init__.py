"""Few-shot accuracy on episodes of labelled classes, and what it depends on."""
