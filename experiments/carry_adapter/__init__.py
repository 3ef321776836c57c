"""A LoRA of rank 4 carried to another base, against the carried full update."""
