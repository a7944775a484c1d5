"""RLHF as an ordinary RL problem: text generation is a Gymnasium environment."""

__version__ = "0.1.0"
