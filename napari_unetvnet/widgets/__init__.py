"""Dock widgets of the viewer: they write run folders, start and follow the runs, and show the results.

The only package that knows napari and Qt. It never imports torch: all computing happens in a child process.
"""
