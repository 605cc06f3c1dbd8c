"""Optuna's study of a folder: what is drawn, where it is kept, and that it stays true; neither Ray nor torch."""
