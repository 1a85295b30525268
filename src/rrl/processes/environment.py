"""The names of environment variables by which processes of this project speak to each other and to their user."""

OWN = "RRL_PARTS"
"""The folders of a user's own parts, separated as in PATH."""
PARENT = "RRL_PARENT"
"""Set for ranks that rrl-train itself has started, which takes the signals and tells how the run ended: its process
number, or 0 where it is on another machine."""
DEVICES = "RRL_DEVICES"
"""DeepSpeed counts devices off from 0, so those that a user chose travel under this name."""
PROBE = "RRL_PROBE"
"""The file for what the processes of the doctor's probe have found."""
