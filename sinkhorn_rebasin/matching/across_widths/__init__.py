"""Transport between networks of different widths."""
