from twinkernels.bench import pytest_suite

test_twins, test_speed = pytest_suite("softplus.py")
