"""Augmentation: Kornia operations by name, presets in four levels, and the stage that applies them."""
