"""Train a U-Net or V-Net on painted labels and segment with it, in napari or without.

The package itself imports nothing: subpackages are imported where they are used, so that ``import napari_unetvnet`` is
fast and the viewer never loads torch. ``docs/explanation/architecture.md`` says what each package is for.
"""

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: ``importlib.metadata`` takes longer than this import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-unetvnet")
    msg = f"module 'napari_unetvnet' has no attribute {name!r}"
    raise AttributeError(msg)
