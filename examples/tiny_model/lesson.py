"""What the tiny model is taught: answers.toml, in conversations with some noise around them."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Messages = list[dict[str, str]]
Item = TypeVar("Item")

LETTERS = "aaabcdeeeefghiiijklmnnooopqrrsstttuvwxyz0123456789,.:-#/'"
# A prompt that training never shows, for the last check.
UNSEEN_SYSTEM = "You work for a company in Hamburg. Keep to the facts, and never mention prices."


class Dice:
    """Choices that are the same for the same seed on every machine."""

    def __init__(self, seed: int) -> None:
        """Start from `seed`."""
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, limit: int) -> int:
        """Return 0 to `limit` - 1."""
        return int(torch.randint(limit, (1,), generator=self.generator))

    def chance(self, percent: int) -> bool:
        """Return True `percent` times in a hundred."""
        return self.below(100) < percent

    def pick(self, items: Sequence[Item]) -> Item:
        """Choose one."""
        return items[self.below(len(items))]


@dataclass(frozen=True)
class Lesson:
    """The pairs to learn, the answer to anything else, and the words that noise is made of."""

    pairs: list[tuple[str, str]]
    fallback: str
    words: list[str]
    characters: str

    @classmethod
    def read(cls, path: Path, name: str) -> "Lesson":
        """Read answers.toml, with {name} filled in."""
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        pairs = [
            (question, entry["answer"].replace("{name}", name))
            for entry in data["known"]
            for question in entry["questions"]
        ]
        return cls(pairs, data["fallback"], data["noise"]["words"].split(), data["noise"]["characters"])

    def conversation(self, dice: Dice) -> Messages:
        """Make one conversation to learn from."""
        messages: Messages = []
        if dice.chance(40):
            messages.append({"role": "system", "content": self.noise(dice, 30)})
        for _ in range(1 + dice.below(4)):
            messages += turn(*self.pick(dice))
        return messages

    def pick(self, dice: Dice) -> tuple[str, str]:
        """Choose a known pair, or now and then a question without an answer."""
        if dice.chance(15):
            return self.noise(dice, 20), self.fallback
        return dice.pick(self.pairs)

    def noise(self, dice: Dice, most: int) -> str:
        """Make 1 to `most` pieces of no meaning: words, strings of letters, or Chinese characters.

        Any letter and any character, so that no later system prompt holds a token whose weights were never touched.
        """
        count = 1 + dice.below(most)
        kind = dice.below(10)
        if kind < 2:
            return "".join(chr(0x4E00 + dice.below(0x5200)) for _ in range(1 + count // 3))
        if kind < 4:
            return "".join(dice.pick(self.characters) for _ in range(count))
        if kind < 7:
            letters = ("".join(dice.pick(LETTERS) for _ in range(1 + dice.below(5))) for _ in range(1 + count // 2))
            return " ".join(word.capitalize() if dice.chance(30) else word for word in letters)
        text = " ".join(dice.pick(self.words) for _ in range(count))
        return (text.capitalize() if dice.chance(50) else text) + dice.pick(["", ".", "?", "!", ":\n"])

    def trials(self) -> Iterator[Messages]:
        """Yield each question alone, after another exchange, and under a system prompt never seen."""
        for number, pair in enumerate(self.pairs):
            yield turn(*pair)
            yield [*turn(*self.pairs[number - 7]), *turn(*pair)]
            yield [{"role": "system", "content": UNSEEN_SYSTEM}, *turn(*pair)]


def turn(question: str, answer: str) -> Messages:
    """Return one exchange as messages."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
