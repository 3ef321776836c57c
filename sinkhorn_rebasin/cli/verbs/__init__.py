"""One file a verb: its options, an example, and what it does."""
