"""The search: budget, decisions, and the single stage that finds a subnet."""
