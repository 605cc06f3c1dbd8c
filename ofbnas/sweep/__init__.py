"""A study: Optuna samples trials, Ray Tune runs them. Only this package knows either."""
