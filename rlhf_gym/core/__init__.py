"""What everything else stands on: tokens, models, sampling, data, feedback, supervised trainers."""
