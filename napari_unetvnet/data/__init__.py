"""From labelled volumes to batches: checks, targets, what is held out, what patches are drawn and how they change."""
