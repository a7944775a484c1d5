"""Stages that learn from given text: pretraining, supervised fine-tuning, reward models.

Each is a frozen configuration and a function, on `transformers.Trainer`; each writes a plain
Hugging Face directory that the next one reads.
"""
