"""Parts of weight matching: similarities of units, their signs, nested groups, coordinate ascent."""
