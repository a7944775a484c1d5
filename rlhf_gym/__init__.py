"""RLHF as an ordinary reinforcement-learning problem: text generation is a Gymnasium environment."""

__version__ = "0.1.0"
