"""A run: its folder, its stages in order, and what it will do."""
