"""The tables of all floors: importing this module puts each of them into `metadata`."""

import importlib
import pkgutil

import offsite
from offsite.store.tables import metadata

__all__ = ["metadata"]

for _module in pkgutil.walk_packages(offsite.__path__, "offsite."):
    if _module.name.endswith(".tables"):
        importlib.import_module(_module.name)
