"""Fixtures known to every test."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures_cluster"]

# Timing never decides a test: a loaded machine makes single examples slow. CI tries the same examples each time, so
# that a change is judged and not the dice; everybody else's runs look for new ones.
settings.register_profile(
    "autotls",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("autotls")
