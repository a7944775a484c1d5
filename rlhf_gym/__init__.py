"""RLHF as an ordinary RL problem: text generation is a Gymnasium environment.

Importing this package registers the environments (`rlhf_gym/Sentiment-v0`, ...) and nothing more:
torch and transformers are loaded when an environment is made.
"""

from rlhf_gym.envs.registration import register_all

__version__ = "0.1.0"

register_all()
