"""Environments: each a file or folder, registered as `rlhf_gym/<Name>-v0`."""
