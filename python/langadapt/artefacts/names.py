"""Files that say what a folder is."""

MANIFEST_NAME = "manifest.json"
"""Of an artefact: stage, settings, inputs, sizes and hashes."""
UPLOAD_NAME = "langadapt-upload.json"
"""Of an artefact in a store: which files were put there, and whether that is all of them."""
SWAP_ROWS_NAME = "swap_rows.npz"
"""The weights that its new rows were made with, see :mod:`langadapt.swap.rows.kept`."""
