"""Which units may move, and how: from relations to groups and slots."""
