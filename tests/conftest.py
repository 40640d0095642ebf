"""Fixtures known to every test."""

pytest_plugins = ["tests.fixtures_cluster"]
