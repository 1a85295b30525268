"""Functions for interpolations in configurations: ``${next_question:}``."""

from typing import Any


def register() -> None:
    """Register the resolvers."""
    from omegaconf import OmegaConf

    def plain(_root_: Any) -> list[str]:
        """Empty unless the template is the plain one; that one reports a value that is no text."""
        text = OmegaConf.select(_root_, "data.plain_template")
        is_plain = str(OmegaConf.select(_root_, "template._target_")).endswith(".Plain")
        return next_question(text) if is_plain and isinstance(text, str) else []

    OmegaConf.register_new_resolver("next_question", plain, replace=True)


def next_question(template: str) -> list[str]:
    """The start of a next question under a template: its last line of words before ``{question}``.

    ``Question: {question}`` gives a line's end and ``Question:``. A line that ends in a letter or digit gives nothing,
    as a sentence may begin so anywhere; nor does a template that begins with its question.
    """
    lines = [line.strip() for line in template.partition("{question}")[0].split("\n")]
    heading = next((line for line in reversed(lines) if line), "")
    words = any(character.isalpha() for character in heading)
    return [f"\n{heading}"] if words and not heading[-1].isalnum() else []
