"""Files of our own and of others: written durably, read within limits."""
