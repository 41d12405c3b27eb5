"""Hypothesis for noisy machines: a law is judged by its examples, never by how long they take.

In CI the examples are the same in each run, so that a change is judged by itself; elsewhere each run has new ones.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("shared")
