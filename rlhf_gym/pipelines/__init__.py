"""The stages of RLHF as functions: collect, evaluate, train, the demo and the studies."""
