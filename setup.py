"""Builds happen in a folder of their own: nothing old travels along, and nothing is left behind."""

import atexit
import shutil
import tempfile

from setuptools import find_packages, setup

folder = tempfile.mkdtemp()
atexit.register(shutil.rmtree, folder)
setup(
    packages=[*find_packages("src"), "rrl.conf"],
    options={"build": {"build_base": folder}, "egg_info": {"egg_base": folder}},
)
