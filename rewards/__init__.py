"""Reward terms: each a file; they add, subtract and scale."""
