"""An attacker who has another defence than the one that is judged."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy import ATTACK, DIFFPURE, Toy, evaluation, rows, run

from adpur import ConfigError, Robustness, Row, Saved
from adpur.judging.scoreboard import Column


def test_the_source_is_attacked_and_every_row_is_judged(tmp_path: Path) -> None:
    blocks = [Robustness("pgd", ATTACK), Robustness("transfer", ATTACK, source="undefended")]
    module = run(tmp_path, callbacks=blocks)
    entries = [json.loads(line) for line in rows(tmp_path)]
    scored = {(e["row"], e["attack"], e["index"]): e for e in entries}
    for index in range(100, 112):
        own = scored["undefended", "pgd", index]
        sent = scored["undefended", "transfer", index]
        assert own["predictions"] == sent["predictions"] and own["loss"] == sent["loss"]
        for row in ("diffpure", "ssni"):  # the same images, seen by other defences
            assert scored[row, "transfer", index]["loss"] == own["loss"]
            assert scored[row, "transfer", index]["nfe"] > 0
    white, transfer = (
        module.outcomes[Column("diffpure", a, 0.3)].correct.mean() for a in ("pgd", "transfer")
    )
    assert 0 < white <= transfer < 1
    with pytest.raises(ConfigError, match=r"attacks\.transfer\.source: undefended -> ssni"):
        run(tmp_path, callbacks=[blocks[0], Robustness("transfer", ATTACK, source="ssni")])


def test_a_bad_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row named bare; there is: undefended, diffpure"):
        run(tmp_path, callbacks=[Robustness("a", ATTACK, source="bare")])
    with pytest.raises(ConfigError, match="block 'a': cosine compares"):
        Robustness("a", ATTACK, source="ssni", cosine=2)


def test_stored_images_are_scored_again_to_the_same_numbers(tmp_path: Path) -> None:
    defenses = {"diffpure": Row(DIFFPURE)}
    block = Robustness("pgd", ATTACK)
    module = run(tmp_path / "first", evaluation(defenses=defenses), callbacks=[block])
    kept = module.records.gallery(Column("diffpure", "pgd", 0.3))
    file = tmp_path / "kept.safetensors"
    save_file({k: kept[k] for k in ("index", "adversarial")}, file)
    block = Robustness("saved", Saved(str(file), 0.3))
    again = run(tmp_path / "second", evaluation(defenses=defenses), Toy(size=10), callbacks=[block])
    new, old = (
        {s.index: s.predictions for s in m.outcomes[Column("diffpure", a, 0.3)].scores}
        for m, a in ((again, "saved"), (module, "pgd"))
    )
    assert len(new) == 10 and all(old[i] == new[i] for i in new)
    torch.testing.assert_close(kept["index"], torch.arange(100, 110))
