"""Imported by Ray's processes when they start, before they get a trial, which need not wait for it then."""

import gc

# Imports make a million objects that all stay: looking for garbage among them takes as long as a quarter of the rest.
gc.disable()

import ofbnas.study.cluster.worker  # noqa: E402, F401

gc.freeze()
gc.enable()
