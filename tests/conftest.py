"""Settings of hypothesis that every unit test shares."""

from hypothesis import HealthCheck, settings

# A busy machine is no defect of the code under test.
settings.register_profile(
    "unit", deadline=None, database=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")
