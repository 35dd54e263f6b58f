"""What every test shares: laws are judged by what they find, not by how fast a busy machine finds it."""

from hypothesis import HealthCheck, settings

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
