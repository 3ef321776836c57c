"""Which unit is where: labels of tensors, and the relations between their units."""
