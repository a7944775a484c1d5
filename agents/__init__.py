"""Algorithms and policies that speak Stable-Baselines3's interface."""
