"""The command line: everything the widgets do, without a viewer."""
