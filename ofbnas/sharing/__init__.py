"""Sharing of tables: what travels, its manifest and card, and the places it lies at; no torch."""
