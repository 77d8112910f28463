"""Gauntlet's engine: from a suite to records, from records to figures. It imports no plugin."""

__version__ = "0.1.0"
