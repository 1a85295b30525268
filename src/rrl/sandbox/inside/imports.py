"""The names that are imported by default on sites that call a function: ``List``, ``Counter``, ``cache`` and so on."""

import bisect
import builtins
import collections
import copy
import datetime
import functools
import heapq
import io
import itertools
import json
import math
import operator
import random
import re
import statistics
import string
import sys
import typing
from types import ModuleType
from typing import Any

WHOLE = (
    typing, string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools,
    operator, io, json,
)  # fmt: skip
"""Modules imported as by ``from module import *``; a later module's name replaces an earlier one's."""
OF_SYS = ("getrecursionlimit", "getsizeof", "maxsize", "setrecursionlimit")


class _Both(ModuleType):
    """A module that also acts as its member of the same name, as programs use both: bisect(a, 1), bisect.insort."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(module.__dict__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__[self.__name__](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__[self.__name__], name)


def _names() -> dict[str, Any]:
    names = {name: getattr(module, name) for module in WHOLE for name in _public(module)}
    names |= {name: getattr(sys, name) for name in OF_SYS}
    names |= {module.__name__: module for module in (*WHOLE, sys)}
    return names | {module.__name__: _Both(module) for module in (bisect, copy, datetime, random)}


def _public(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", None) or (name for name in vars(module) if not name.startswith("_")))


_NAMES = _names()


def known() -> dict[str, Any]:
    """The built-in names for a program that defines a function: Python's, which come first, and those of the imports.

    They are built-in so that they do not count as the program's own: a function must be defined by the program.
    """
    return _NAMES | vars(builtins)
