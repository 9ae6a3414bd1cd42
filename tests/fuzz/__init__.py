"""Fuzzing of what reads untrusted bytes: ``python -m tests.fuzz TARGET --seconds 60``. See docs/CONTRIBUTING.md."""
