"""Models: backbones and heads, and the normalisation between their layers."""
