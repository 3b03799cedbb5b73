"""Sinks: where an output goes."""
