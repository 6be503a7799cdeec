"""The entry point older tools expect; the metadata stands in pyproject.toml."""

from setuptools import setup

setup()
