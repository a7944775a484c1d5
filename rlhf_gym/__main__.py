"""`python -m rlhf_gym` is the `rlhf-gym` command."""

from rlhf_gym.cli import main

if __name__ == "__main__":
    main()
