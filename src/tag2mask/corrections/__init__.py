"""A person's corrections: read back from annotation tools, taught to a run, and which photos to correct next."""
