"""Presets from mild (1) to strong (4) as lists of operations; ``mfk components level`` prints them for editing."""

from __future__ import annotations

from typing import Any

_GREY: dict[int, list[dict[str, Any]]] = {
    1: [{"name": "RandomAffine", "degrees": 8.0, "translate": [0.07, 0.07], "p": 1.0}],
    2: [{"name": "RandomAffine", "degrees": 12.0, "translate": [0.1, 0.1], "scale": [0.85, 1.15], "shear": 8.0, "p": 1.0}],
    3: [
        {"name": "RandomAffine", "degrees": 18.0, "translate": [0.12, 0.12], "scale": [0.75, 1.2], "shear": 15.0, "p": 1.0},
        {"name": "RandomPerspective", "distortion_scale": 0.3, "p": 0.5},
    ],
    4: [
        {"name": "RandomAffine", "degrees": 25.0, "translate": [0.15, 0.15], "scale": [0.65, 1.25], "shear": 22.0, "p": 1.0},
        {"name": "RandomPerspective", "distortion_scale": 0.5, "p": 0.7},
        {"name": "RandomErasing", "scale": [0.02, 0.15], "ratio": [0.3, 3.3], "p": 0.5},
    ],
}
_COLOR: dict[int, list[dict[str, Any]]] = {  # 4 is the recipe of SimCLR (T. Chen et al., ICML 2020, appendix A)
    1: [
        {"name": "RandomResizedCrop", "scale": [0.6, 1.0], "p": 1.0},
        {"name": "RandomHorizontalFlip", "p": 0.5},
    ],
    2: [
        {"name": "RandomResizedCrop", "scale": [0.4, 1.0], "p": 1.0},
        {"name": "RandomHorizontalFlip", "p": 0.5},
        {"name": "ColorJitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "p": 0.8},
    ],
    3: [
        {"name": "RandomResizedCrop", "scale": [0.2, 1.0], "p": 1.0},
        {"name": "RandomHorizontalFlip", "p": 0.5},
        {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
        {"name": "RandomGrayscale", "p": 0.2},
    ],
    4: [
        {"name": "RandomResizedCrop", "scale": [0.08, 1.0], "p": 1.0},
        {"name": "RandomHorizontalFlip", "p": 0.5},
        {"name": "ColorJitter", "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8},
        {"name": "RandomGrayscale", "p": 0.2},
        {"name": "RandomGaussianBlur", "kernel_size": [3, 3], "sigma": [0.1, 2.0], "p": 0.5},
    ],
}


_TOKENS: dict[int, list[dict[str, Any]]] = {
    1: [{"name": "drop_tokens", "share": 0.1}],
    2: [{"name": "drop_tokens", "share": 0.2}, {"name": "shuffle_tokens", "distance": 2}],
    3: [{"name": "drop_tokens", "share": 0.3}, {"name": "shuffle_tokens", "distance": 3}],
    4: [{"name": "drop_span", "share": 0.3}, {"name": "drop_tokens", "share": 0.3}, {"name": "shuffle_tokens", "distance": 4}],
}
TABLES = {"grey": _GREY, "color": _COLOR, "tokens": _TOKENS}


def level_operations(level: int, kind: str) -> list[dict[str, Any]]:
    """The operations of a level for ``grey`` images, ``color`` images or ``tokens``, as YAML nodes.

    Raises:
        ValueError: ``level`` is not 1 to 4.
    """
    table = TABLES[kind]
    if level not in table:
        raise ValueError(f"level must be 1 to 4, got {level}; choose one of them or list operations")
    return [dict(operation) for operation in table[level]]
