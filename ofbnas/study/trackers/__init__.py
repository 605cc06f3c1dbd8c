"""Other people's trackers, which a study is mirrored to while it runs."""
