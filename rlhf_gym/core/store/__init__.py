"""Human feedback in a file: what was asked, who answered what, and where it came from."""

from rlhf_gym.core.store.records import EVERYONE, Feedback, Progress, StoredQuery
from rlhf_gym.core.store.store import FeedbackStore

__all__ = ["EVERYONE", "Feedback", "FeedbackStore", "Progress", "StoredQuery"]
