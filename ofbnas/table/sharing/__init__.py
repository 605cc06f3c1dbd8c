"""Sharing of tables: the files that are sent, their manifest and card, and the places; no torch."""
