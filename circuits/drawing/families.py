"""Sizes that follow a rule over repetitions: numbered letters, such as c_λ for 64, 128, 256, 512 (Figure 27).

A family is a letter with a size for each of some consecutive numbers. The sizes of an axis in all repetitions are
consecutive members of a family, from the first to the last or from the last to the first: c_{λ-1}, c_λ, c_{5-λ}.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from circuits.diagram import Value, size_text


class Families:
    """The families of one picture; `letters` holds the members of each by number."""

    def __init__(self) -> None:
        self.letters: dict[str, dict[int, Any]] = {}

    def label(self, sizes: Sequence[Any], name: str) -> str:
        """Return the label of an axis with these sizes in the repetitions λ = 1, 2, ...

        A member is added to a family for a size next to those that it has; without a family a new one begins.

        Args:
            sizes: The size in each repetition, not all equal.
            name: The name or size of the axis in the first, which gives the letter of a new family.
        """
        factor = re.fullmatch(r"(\d+)\*.*", name)
        for letter, members in self.letters.items():
            index = _index(dict(members), [size / int(factor[1]) for size in sizes]) if factor else None
            if factor is not None and index is not None:
                return f"{factor[1]}*{letter}[{index}]"
            index = _index(members, sizes)
            if index is not None:
                return f"{letter}[{index}]"
        letter = self._letter(name)
        self.letters[letter] = dict(enumerate(sizes, start=1))
        return f"{letter}[λ]"

    def _letter(self, name: str) -> str:
        """Return an unused letter for a family: that of the axis, or `n`."""
        found = re.search(r"[^\W\d_]+", name)
        letter = found[0] if found else "n"
        while letter in self.letters:
            letter += "'"
        return letter

    def outside(self, value: Value) -> Value:
        """Return a tensor in which no name of an axis can be mistaken for a member of a family.

        In a circuit `c1` is the name of an axis; beside a family c it would be read as the member 1. It becomes the
        member that has its size, or the size.
        """
        sizes = zip(value.axes, value.sizes, strict=True)
        names = [self.member(name, size) or (name and self._apart(name, size)) for name, size in sizes]
        return replace(value, axes=tuple(names))

    def member(self, name: str | None, size: Any) -> str | None:
        """Return the member of a family that has the size of an axis, if the axis has a name like one; else None."""
        if name is None or not self._looks_like_a_member(name):
            return None
        letter = re.search(r"[^\W\d_]+", name)
        members = self.letters.get(letter[0], {}) if letter else {}
        found = next((number for number, member in members.items() if member == size), None)
        return None if letter is None or found is None else f"{letter[0]}[{found}]"

    def _apart(self, name: str, size: Any) -> str:
        """Return a name, or the size in place of a name like a member's."""
        return size_text(size) if self._looks_like_a_member(name) else name

    def _looks_like_a_member(self, name: str) -> bool:
        return any(word.rstrip("0123456789") in self.letters for word in re.findall(r"[^\W\d_]+\d+", name))

    def lines(self, pairs: Sequence[tuple[str, str, str]]) -> tuple[str, ...]:
        """Return what the letters stand for, one line a family.

        Args:
            pairs: The pairs of axes that are drawn as one wire, each with its label: one line stands for both.
        """
        labels = {first: label for label, first, _ in pairs}
        found = []
        for letter, members in self.letters.items():
            if letter in [second for _, _, second in pairs]:
                continue
            numbers, shown = sorted(members), labels.get(letter, letter)
            texts = [re.sub(rf"\b{letter}\b", shown, size_text(members[number])) for number in numbers]
            found.append(f"{shown}[i] = {', '.join(texts)}  (i = {numbers[0]}…{numbers[-1]})")
        return tuple(found)


def _index(members: dict[int, Any], sizes: Sequence[Any]) -> str | None:
    """Return the number of a size in a family as a formula of λ, and add sizes next to those that it has.

    None if the sizes are not consecutive members. Of several formulas it is that with the most members.
    """
    starts = {
        (number - step * place, step): None
        for step in (1, -1)
        for place, size in enumerate(sizes)
        for number, member in members.items()
        if size == member
    }
    best: dict[int, Any] = {}
    found, most = None, min(2, len(sizes)) - 1
    for first, step in starts:
        wanted = {first + step * place: size for place, size in enumerate(sizes)}
        shared = [number for number in wanted if number in members]
        if len(shared) > most and all(members[number] == wanted[number] for number in shared):
            best, found, most = wanted, _formula(first - step, step), len(shared)
    members |= best
    return found


def _formula(offset: int, step: int) -> str:
    """Return `λ+1`, `λ`, `λ-1` or `5-λ`."""
    if step < 0:
        return f"{offset}-λ"
    return "λ" if not offset else f"λ{offset:+d}"


__all__ = ["Families"]
