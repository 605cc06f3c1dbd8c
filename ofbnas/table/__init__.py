"""The architecture table: columns, fronts, comparison, sharing; no torch."""
