"""Tutorials are run by tests of their own, and not once more when doctests are collected."""

collect_ignore_glob = ["[0-9]*.py"]
