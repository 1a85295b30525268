"""Seconds of a PPO step by phase on one and on many cards, calculated, not measured: the table of docs/scaling.md.

python experiments/bench/scaling.py
"""

from typing import NamedTuple


class Card(NamedTuple):
    """An H100 SXM by its data sheet, and the share of it that is assumed to be reached."""

    flops: float = 989e12  # dense bfloat16
    bandwidth: float = 3.35e12  # bytes a second of its memory
    link: float = 450e9  # bytes a second to the cards of its machine, one way
    network: float = 50e9  # bytes a second to other machines, one way
    trained: float = 0.4
    read: float = 0.6  # of bandwidth, in decoding
    sent: float = 0.7  # of a link


class Shape(NamedTuple):
    """Parameters, and bytes of keys and values a token in bfloat16."""

    parameters: float
    cache: float


CARD = Card()
SHAPES = {"0.5 B": Shape(0.49e9, 24 * 2 * 2 * 64 * 2), "7 B": Shape(7.6e9, 28 * 2 * 4 * 128 * 2)}
"""Qwen2.5: layers x (keys and values) x heads of them x their width x 2 bytes."""
ROWS, PROMPT, RESPONSE, MICRO, PLACES = 1024, 256, 1024, 8, 256
"""Of a step; every response is taken to be as long as the limit. A card decodes at most PLACES rows at a time."""
LAUNCH = 0.02
"""Seconds that a token takes at least in a decode loop without CUDA graphs: some 700 launches of a kernel."""


class Step(NamedTuple):
    """Seconds of the phases of a step."""

    gen: float
    old_log_prob: float
    update_actor: float
    gathering: float

    @property
    def whole(self) -> float:
        """Gathering goes on beside the passes."""
        return self.gen + max(self.gathering, self.old_log_prob + self.update_actor)


def step(shape: Shape, cards: int, launch: float) -> Step:
    """PPO with actor, critic and frozen reference, one epoch; ZeRO 3 where there are several cards."""
    own = ROWS // cards
    rounds, places = max(1, own // PLACES), min(own, PLACES)
    moved = 2 * shape.parameters + places * (PROMPT + RESPONSE / 2) * shape.cache
    token = max(launch, moved / (CARD.bandwidth * CARD.read))
    tokens = own * (PROMPT + RESPONSE)
    rate = CARD.flops * CARD.trained
    passes = own // MICRO
    weights = 2 * shape.parameters / _link(cards)  # in bfloat16, once
    gathering = 0.0 if cards == 1 else weights * (1 + 3 * passes + 2 * 3 * passes)  # gen, old_log_prob, update
    return Step(
        gen=rounds * RESPONSE * token,
        old_log_prob=3 * 2 * shape.parameters * tokens / rate,
        update_actor=2 * 6 * shape.parameters * tokens / rate,
        gathering=gathering,
    )


def _link(cards: int) -> float:
    """Bytes a second at which one card gathers weights: by its machine's links, or the network's share of eight cards.

    Between machines every byte comes in once for the eight cards, through their eight adapters.
    """
    return CARD.sent * (CARD.link if cards <= 8 else min(CARD.link, 8 * CARD.network))


def main() -> None:
    """The table, as Markdown."""
    print("| model, cards | rows a card | gen | old_log_prob | update_actor | gathering | step | efficiency |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, cards in (("0.5 B", 1), ("7 B", 8), ("7 B", 64), ("7 B", 128)):
        for launch, how in ((LAUNCH, ""), (0.0, ", bound by bandwidth")):
            taken = step(SHAPES[name], cards, launch)
            fewest = 8 if name == "7 B" else 1
            share = step(SHAPES[name], fewest, launch).whole * fewest / (taken.whole * cards)
            shown = " | ".join(f"{seconds:.1f} s" for seconds in (*taken, taken.whole))
            print(f"| {name}, {cards}{how} | {ROWS // cards} | {shown} | {share:.0%} |")


if __name__ == "__main__":
    main()
