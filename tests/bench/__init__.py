"""Benchmarks: `python -m tests.bench [SCENARIO…] [--quick]`. They measure and print; nothing here is asserted in a test."""
