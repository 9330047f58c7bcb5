"""Puts the shipped pipelines and searches, whose folders lie beside the package, into it; all else is in setup.cfg."""

from setuptools import find_packages, setup

SHIPPED = {"metaflowkit.shipped.pipelines": "pipelines", "metaflowkit.shipped.pipelines.studies": "pipelines/studies", "metaflowkit.shipped.search": "search"}

setup(
    packages=[*find_packages(include=["metaflowkit*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={"metaflowkit": ["py.typed"], **{package: ["*.yaml"] for package in SHIPPED}},
)
