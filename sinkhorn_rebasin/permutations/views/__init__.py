"""Faces of a specification: tables, graphs, shares and the dictionary of Git Re-Basin."""
