"""A study: its parent, its trials, Optuna and Ray around them, its report."""
