"""A network with its card: built, loaded, saved, moved to a device, and run."""
