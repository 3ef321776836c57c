"""What scores on a few candidates cost beside dense products, and what they find beside all scores."""
