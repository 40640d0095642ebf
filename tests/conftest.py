"""Fixtures known to every test."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures_cluster"]

# Timing never decides a test: a loaded machine makes single examples slow.
settings.register_profile("autotls", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("autotls")
