"""What a configuration computes while it is composed: ``${next_question:...}``."""


def register() -> None:
    """Let configurations name what is below."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver(  # a template that is no text is told where it is read
        "next_question", lambda text: next_question(text) if isinstance(text, str) else [], replace=True
    )


def next_question(template: str) -> list[str]:
    """What begins another question under a template with ``{question}`` in it: its last line of words before that.

    ``Question: {question}`` gives a line's end and ``Question:``. A line that ends in a letter or digit, as a sentence
    might begin anywhere, gives nothing, nor does a template that begins with its question.
    """
    lines = [line.strip() for line in template.partition("{question}")[0].split("\n")]
    heading = next((line for line in reversed(lines) if line), "")
    words = any(character.isalpha() for character in heading)
    return [f"\n{heading}"] if words and not heading[-1].isalnum() else []
