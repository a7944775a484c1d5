"""Reward terms by name. A new term is its file and one line here."""

from rlhf_gym.core.registry import Registry

REWARDS = Registry(
    "reward",
    {
        "function": ("rlhf_gym.rewards.base:FunctionReward", "a Python function of the texts"),
        "reward_model": ("rlhf_gym.rewards.model:RewardModel", "a sequence classifier's score"),
        "kl": ("rlhf_gym.rewards.kl:KLPenalty", "the price of leaving the reference"),
        "mixture": ("rlhf_gym.rewards.base:WeightedReward", "terms by weight: a + 0.5 * b - c"),
        "length": ("rlhf_gym.rewards.lengths:LengthPenalty", "a price for every token"),
        "target_length": (
            "rlhf_gym.rewards.lengths:TargetLengthPenalty",
            "a price for every token away from a length",
        ),
        "soft_overlong": (
            "rlhf_gym.rewards.lengths:SoftOverlongPenalty",
            "a price that rises as the budget runs out (DAPO)",
        ),
        "missing_stop": (
            "rlhf_gym.rewards.lengths:MissingStopPenalty",
            "a price for not ending by oneself",
        ),
        "repetition": (
            "rlhf_gym.rewards.repetition:RepetitionPenalty",
            "a price for repeated n-grams",
        ),
        "keywords": ("rlhf_gym.rewards.wording:KeywordReward", "the share of keywords found"),
        "lexicon": ("rlhf_gym.rewards.wording:LexiconReward", "the weights of the words used"),
        "regex": ("rlhf_gym.rewards.wording:RegexReward", "a regular expression is found or not"),
        "verifiable": (
            "rlhf_gym.rewards.verifiable:VerifiableReward",
            "what a checker says of prompt and response",
        ),
        "lump": ("rlhf_gym.rewards.spread:Lump", "all of a reward with the last token"),
        "uniform": ("rlhf_gym.rewards.spread:UniformSpread", "a reward spread over all tokens"),
        "attention": (
            "rlhf_gym.rewards.attention:AttentionSpread",
            "a score spread as the reward model attends",
        ),
        "dense": ("rlhf_gym.rewards.dense:PartialScores", "what each token adds to the score"),
        "token_heads": ("rlhf_gym.rewards.dense:TokenHeads", "a per-token reward model's outputs"),
        "shaping": (
            "rlhf_gym.rewards.shaping:PotentialShaping",
            "gamma * Phi(s') - Phi(s), which leaves the optimum where it is",
        ),
        "clipped": ("rlhf_gym.rewards.transforms:Clipped", "scores kept within a range"),
        "running": (
            "rlhf_gym.rewards.transforms:RunningNormalised",
            "scores on the scale of all so far",
        ),
        "whitened": ("rlhf_gym.rewards.transforms:Whitened", "scores on the scale of their batch"),
        "group": (
            "rlhf_gym.rewards.transforms:GroupNormalised",
            "scores on the scale of their prompt's",
        ),
        "centred": ("rlhf_gym.rewards.centring:Centred", "scores less a constant"),
        "margin": ("rlhf_gym.rewards.centring:Margin", "scores less another answer's"),
        "ensemble": (
            "rlhf_gym.rewards.ensemble:EnsembleReward",
            "several rewards: mean, minimum, mean less deviations",
        ),
    },
)
"""Terms for tasks of writing."""

_STEPS = "rlhf_gym.rewards.step_terms"
CONTROL_REWARDS = Registry(
    "reward",
    {
        "automated": (f"{_STEPS}:Automated", "what the task itself measures"),
        "gold": (f"{_STEPS}:Gold", "what the task's judge says"),
        "preferences": (f"{_STEPS}:Preferences", "a reward learned from comparisons"),
        "function": (f"{_STEPS}:StepFunction", "a Python function of the steps"),
        "time": (f"{_STEPS}:TimePenalty", "a price for every step"),
        "clipped": (f"{_STEPS}:ClippedSteps", "each step's reward kept within a range"),
        "running": (f"{_STEPS}:RunningScale", "rewards on the scale of all returns so far"),
        "shaping": (
            "rlhf_gym.rewards.step_sums:StepShaping",
            "gamma * Phi(s') - Phi(s), which leaves the optimum where it is",
        ),
    },
)
"""Terms for tasks of acting."""
