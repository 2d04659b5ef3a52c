"""Images and labels: read from files and containers, kept as volumes with their place in space, written back."""
