"""What every experiment writes down: receipts, the tables made of them, JSON files and progress."""
