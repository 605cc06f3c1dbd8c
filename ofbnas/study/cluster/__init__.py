"""A study on Ray: Tune runs its trials. Only this package imports Ray."""
