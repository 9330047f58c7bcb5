"""The versions of the packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "torchvision", "higher", "kornia", "optuna", "numpy", "scipy", "scikit-learn", "pillow", "matplotlib", "click", "PyYAML")


def versions() -> dict[str, str | None]:
    """Each package's version by its name; None where it is not installed."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
