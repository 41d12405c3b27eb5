"""Hypothesis for noisy machines: a law is judged by its examples, never by how long they take."""

from hypothesis import HealthCheck, settings

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
