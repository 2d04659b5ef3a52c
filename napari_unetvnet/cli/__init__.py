"""The command line: the same work as the widgets do, without a viewer."""
