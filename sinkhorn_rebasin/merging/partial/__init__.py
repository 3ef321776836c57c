"""Networks in which some units of two networks are one, and the others stand beside each other."""
