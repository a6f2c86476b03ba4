"""Benchmarks: `suite` for asv, pytest-benchmark tests, and comparisons with other libraries."""
