"""Other words in a text's most important places, chosen by the scores alone."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.losses import margin
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

UNKNOWN = 1  # the id of a word outside the vocabulary


@attack("word_substitution")
class WordSubstitution(Attack):
    """Replaces up to epsilon words of a text, the most important first, each by the best of some candidates.

    A word is the more important the more the label's margin falls when the unknown word stands in its place. The
    candidates of a place are drawn from the whole vocabulary (all of it where `candidates` is not below its size): they
    keep neither meaning nor grammar, so a broken text need not read like its original. Greedy, so an upper bound of the
    smallest number of words. The distance (l0) is the number of words replaced.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L0,)
    knowledge: ClassVar[Knowledge] = Knowledge.SCORE
    tokens: ClassVar[bool] = True
    exhaustive: ClassVar[bool] = True

    norm: Norm = Norm.L0
    candidates: Annotated[int, Field(ge=1, description="words tried in each place")] = 50

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. At most words + epsilon * (candidates + 1) forward passes per text."""
        assert epsilon is not None
        moved = x.clone()
        for row in range(len(x)):
            part = model.rows(torch.tensor([row]))
            moved[row] = self._replaced(part, x[row], y[row : row + 1], int(epsilon), random.rows([row]))
        return moved

    def _replaced(self, model: Classifier, text: Tensor, label: Tensor, words: int, random: SampleRandom) -> Tensor:
        text = text.clone()
        places = text.nonzero()[:, 0]
        for place in places[_margins(model, _with(text, places), label).argsort(descending=True, stable=True)][:words]:
            chosen = self._candidates(len(model.vocabulary), random).to(text.device)
            chosen = torch.cat([text[place, None], chosen])  # the word itself stays where no other is better
            tried = text.repeat(len(chosen), 1)
            tried[:, place] = chosen
            margins = _margins(model, tried, label)
            text = tried[margins.argmax()]
            if margins.max() > 0:
                break
        return text

    def _candidates(self, vocabulary: int, random: SampleRandom) -> Tensor:
        """Ids (k,) of different words; neither the filling nor the unknown word."""
        every = torch.arange(UNKNOWN + 1, vocabulary)
        if self.candidates >= len(every):
            return every
        return every[random.uniform((len(every),))[0].argsort()[: self.candidates]]


def _with(text: Tensor, places: Tensor) -> Tensor:
    """(places, length): the text with the unknown word in one place each."""
    tried = text.repeat(len(places), 1)
    tried[torch.arange(len(places)), places] = UNKNOWN
    return tried


def _margins(model: Classifier, texts: Tensor, label: Tensor) -> Tensor:
    """(n,) above 0 where the label (1,) is lost."""
    with torch.no_grad():
        return margin(model.logits(texts), label.expand(len(texts)))
