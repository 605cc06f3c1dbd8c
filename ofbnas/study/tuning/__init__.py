"""Optuna's study of a folder: sampling, storage, consistency with the table; no Ray, no torch."""
