"""One module a file format, each with ``read`` and, unless it is only read, ``write``.

`napari_unetvnet.formats` lists them.
"""
