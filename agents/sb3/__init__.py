"""Policies with which stock Stable-Baselines3 and sb3-contrib algorithms train language models."""
