"""rrl-doctor: what is usable here, and how to mend what is not."""

import sys
from collections.abc import Sequence

from rrl.cli import shell

HELP = """
rrl-doctor says what is usable on this machine and, for what is not, why and how to mend it.

  rrl-doctor          looks, imports every library in a process of its own, and multiplies two matrices
  rrl-doctor --deep   also starts two processes, trains a step at each ZeRO stage and asks the hub: a minute
  rrl-doctor --json   the same for a program

It ends with code 0 when rrl can run the embedded task here, else with 1. It reaches no network, but for --deep.
"""


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_doctor, HELP))


def _doctor(arguments: Sequence[str]) -> None:
    from rrl.errors import ConfigError
    from rrl.preflight.doctor.libraries import checks
    from rrl.preflight.doctor.report import as_json, as_text, examine, usable

    unknown = [argument for argument in arguments if argument not in ("--deep", "--json")]
    if unknown:
        raise ConfigError(*(f"{argument}: no such option; expected --deep, --json or --help" for argument in unknown))
    findings = examine(checks(deep="--deep" in arguments))
    print(as_json(findings) if "--json" in arguments else as_text(findings))
    if not usable(findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
