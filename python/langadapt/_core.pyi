"""The compiled core. Use the documented wrappers in the modules beside this file."""

from os import PathLike

__version__: str

def hash_file(path: str | PathLike[str]) -> str: ...
def hash_bytes(data: bytes) -> str: ...
