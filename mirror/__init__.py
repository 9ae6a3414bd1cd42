"""Mirrors what a media service made for you: resumable, verified, with a manifest that can be trusted."""

__version__ = "0.1.0"
