"""CLINC150, short questions to an assistant."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from metaflowkit.config.registry import DATASETS
from metaflowkit.config.schema import Count, Several, nearest
from metaflowkit.datasets.splits import disjoint
from metaflowkit.datasets.tokens import tokens
from metaflowkit.errors import DataError
from metaflowkit.types import TokenSet

FILES = ("data_full.json", "data_full.json.gz")


@DATASETS.register("clinc150")
class Clinc150:
    """CLINC150, 22,500 English questions and requests to an assistant, of 150 intents in ten domains; intents are the classes.

    The splits have disjoint domains, and each domain has 15 intents with 150 texts. The original's own splits are merged; the
    out-of-scope texts are left out.

    Args:
        root: folder that holds ``data_full.json`` (or ``.json.gz``) and ``domains.json`` of https://github.com/clinc/oos-eval.
        train: domains that are learned from.
        val: domains for validation.
        test: domains for the test.
        vocabulary: how many numbers words are hashed to.
        length: words of a text at most; the longest has 28.

    Reference:
        S. Larson et al., An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction, EMNLP 2019.
    """

    modality = "tokens"

    def __init__(
        self,
        root: str = "data/clinc150",
        train: list[str] = ["banking", "kitchen_and_dining", "home", "auto_and_commute", "small_talk", "utility"],  # noqa: B006
        val: list[str] = ["credit_cards", "meta"],  # noqa: B006
        test: list[str] = ["travel", "work"],  # noqa: B006
        vocabulary: Several = 8192,
        length: Count = 28,
    ) -> None:
        self.root, self.vocabulary, self.length = Path(root), vocabulary, length
        self.domains = {"train": list(train), "val": list(val), "test": list(test)}

    def load(self) -> dict[str, TokenSet]:
        """Read, tokenise, and split by domain."""
        path = next((self.root / name for name in FILES if (self.root / name).is_file()), None)
        if path is None:
            raise DataError(f"{self.root}: holds no {' or '.join(FILES)}; set dataset.root to the folder with CLINC150's data_full.json and domains.json")
        domains = _read(self.root / "domains.json")
        content = _read(path)
        try:
            rows = [(str(text), str(intent)) for part in ("train", "val", "test") for text, intent in content[part]]
            owners = {str(intent): str(domain) for domain, intents in domains.items() for intent in intents}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is not in CLINC150's form ({type(error).__name__}: {error}); download it again") from None
        names = sorted(owners)
        members = disjoint(names, {split: self._intents(split, domains, names) for split in self.domains})
        x = tokens([text for text, _ in rows], self.vocabulary, self.length)
        return {split: self._split(x, [intent for _, intent in rows], [names[c] for c in chosen], owners) for split, chosen in members.items()}

    def _intents(self, split: str, domains: dict[str, list[str]], names: list[str]) -> list[int]:
        for domain in self.domains[split]:
            if domain not in domains:
                raise DataError(f"dataset.{split}: there is no domain {domain!r}; {nearest(domain, domains)}")
        return [names.index(intent) for domain in self.domains[split] for intent in domains[domain]]

    def _split(self, x: torch.Tensor, intents: Sequence[str], chosen: Sequence[str], owners: dict[str, str]) -> TokenSet:
        labels = {intent: i for i, intent in enumerate(chosen)}
        rows = [i for i, intent in enumerate(intents) if intent in labels]
        y = torch.tensor([labels[intents[i]] for i in rows], dtype=torch.int64)
        return TokenSet(x[rows], y, tuple(f"{owners[intent]}/{intent}" for intent in chosen), vocabulary=self.vocabulary)


def _read(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; it belongs to CLINC150, https://github.com/clinc/oos-eval") from None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None
