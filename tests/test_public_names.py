"""The public names: what is promised is there, and stays what it is whatever was imported before."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import types

import langadapt


def test_every_public_name_is_there_and_no_module_takes_its_place() -> None:
    modules = [f"langadapt.{module.name}" for module in pkgutil.iter_modules(langadapt.__path__)]
    for name in modules:
        # Some need packages that are extras.
        if name != "langadapt.__main__":
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
    for name in langadapt.__all__:
        assert not isinstance(getattr(langadapt, name), types.ModuleType), name
    assert set(langadapt.__all__) <= set(dir(langadapt))
