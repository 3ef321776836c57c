"""Files: alignments, weights, and how they are written whole or not at all."""
