"""The process group: one process, and a clear word where a launcher started more."""

import subprocess
import sys


def test_several_processes_are_refused_before_any_of_them_trains():
    code = (
        "import os; os.environ['WORLD_SIZE'] = '2'\n"
        "from rrl.distributed import start_process_group\n"
        "from rrl.errors import ConfigError\n"
        "try:\n    start_process_group()\nexcept ConfigError as error:\n    print(error.faults[0])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == (
        "WORLD_SIZE: 2 processes were started, but this version trains in one; start it without a launcher\n"
    )
