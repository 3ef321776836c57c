"""Time and memory of the command on checkpoints of a billion weights."""
