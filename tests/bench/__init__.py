"""Benchmarks: `python -m tests.bench [SCENARIO…] [--quick]`. They measure and print; no test asserts a time."""
