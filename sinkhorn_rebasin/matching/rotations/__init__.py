"""Closed forms of continuous symmetries: polar factors, balanced gauges, and what they carry where."""
