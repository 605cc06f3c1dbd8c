"""A study on Ray: Tune runs the trials that the ledger has. Only this package knows Ray."""
