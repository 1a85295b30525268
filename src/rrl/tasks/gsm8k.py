r"""GSM8K: grade-school word problems, judged by the exact final number of the response.

Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv:2110.14168). A solution's last line is
``#### <number>``; its steps carry calculator annotations such as ``<<48/2=24>>``.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from rrl.data import Row, load_split, refuse, shuffled_epochs
from rrl.interfaces import Task
from rrl.types import Example, Feedback, Rollout, Verdict
