"""What users call: decorators, blocks and point events."""
