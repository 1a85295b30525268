"""rrl-doctor: what is usable here, and how to fix what is not."""

import sys
from collections.abc import Sequence

from rrl.cli import shell
from rrl.errors import ConfigError

HELP = """
rrl-doctor reports what is usable on this machine and, for what is not, the reason and the remedy.

  rrl-doctor          checks the machine, imports every library in a separate process, and multiplies two matrices
  rrl-doctor --deep   also starts two processes, trains a step at each ZeRO stage and contacts the hub: a minute
  rrl-doctor --json   the same as JSON

The exit code is 0 when rrl can run the built-in task here, else 1. Only --deep uses the network.
"""


def main() -> None:
    sys.exit(shell.run_command(_doctor, HELP))


def _doctor(arguments: Sequence[str]) -> None:
    from rrl.preflight.doctor.libraries import checks
    from rrl.preflight.doctor.report import examine, report_json, report_text, usable

    unknown = [argument for argument in arguments if argument not in ("--deep", "--json")]
    if unknown:
        raise ConfigError(*(f"{argument}: no such option; expected --deep, --json or --help" for argument in unknown))
    findings = examine(checks(deep="--deep" in arguments))
    print(report_json(findings) if "--json" in arguments else report_text(findings))
    if not usable(findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
