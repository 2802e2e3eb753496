"""Every attack is reached from YAML by its name."""

from pathlib import Path

import pytest

from adpur import DLR, L2, PGD, ConfigError, DiffHammer, Robustness, Square, rand
from adpur.cli.run import parse
from adpur.shipped import resolve_config

BLOCKS = """
    - {class_path: adpur.Robustness, init_args: {name: fgsm, attack: {class_path: adpur.fgsm, init_args: {eps: 8/255, eot: 4}}}}
    - {class_path: adpur.Robustness, init_args: {name: random, attack: {class_path: adpur.RandomNoise, init_args: {eps: 0.5, norm: adpur.L2, points: 7}}}}
    - {class_path: adpur.Robustness, init_args: {name: square, eps: [0.1, 0.2], attack: {class_path: adpur.Square, init_args: {norm: {class_path: adpur.L2}, steps: 9}}}}
    - {class_path: adpur.Robustness, init_args: {name: spsa, attack: {class_path: adpur.SPSA, init_args: {samples: 8, loss: adpur.CrossEntropy}}}}
    - {class_path: adpur.Robustness, init_args: {name: sticky, gradient: adpur.BPDA, attack: {class_path: adpur.StickyPGD, init_args: {step_size: 2/255}}}}
    - {class_path: adpur.Robustness, init_args: {name: best, attack: {class_path: adpur.PGD, init_args: {candidates: 4, decay: adpur.CosineDecay, sign_step: true}}}}
    - {class_path: adpur.Robustness, init_args: {name: gowal, attack: {class_path: adpur.PGD, init_args: {decay: {class_path: adpur.StepwiseDecay, init_args: {at: [0.5, 0.75]}}}}}}
    - {class_path: adpur.Robustness, init_args: {name: stadv, eps: [0.05, 0.1], attack: {class_path: adpur.StAdv, init_args: {tau: 0.1, norm: adpur.Flow}}}}
    - {class_path: adpur.Robustness, init_args: {name: queries, attack: {class_path: adpur.spsa_1280, init_args: {norm: adpur.L2}}}}
    - {class_path: adpur.Robustness, init_args: {name: diffattack, eps: [0.1, 0.2], gradient: adpur.Checkpointed, attack: {class_path: adpur.DiffAttack, init_args: {weight: 0.5}}}}
    - {class_path: adpur.Robustness, init_args: {name: diffattack-pgd, attack: {class_path: adpur.DiffAttack, init_args: {attack: {class_path: adpur.PGD, init_args: {steps: 7}}}}}}
    - {class_path: adpur.Robustness, init_args: {name: diffhammer, attack: {class_path: adpur.DiffHammer, init_args: {norm: adpur.L2, loss: adpur.DLR, ahead: null, graft: false}}}}
    - {class_path: adpur.Robustness, init_args: {name: transfer, source: undefended, attack: {class_path: adpur.PGD}}}
"""


def config(folder: Path, blocks: str) -> str:
    head, _ = Path(resolve_config("ssni_digits")).read_text().split("  callbacks:\n")
    file = folder / "attacks.yaml"
    file.write_text(f"{head}  callbacks:\n{blocks.strip(chr(10))}\n")
    return str(file)


def test_every_attack_is_reached_from_yaml(tmp_path: Path) -> None:
    cli = parse("test", ["-c", config(tmp_path, BLOCKS), "--trainer.logger=false"])
    blocks = {c.block.name: c.block for c in cli.trainer.callbacks if isinstance(c, Robustness)}
    assert list(blocks) == [
        "fgsm",
        "random",
        "square",
        "spsa",
        "sticky",
        "best",
        "gowal",
        "stadv",
        "queries",
        "diffattack",
        "diffattack-pgd",
        "diffhammer",
        "transfer",
    ]
    fgsm, square = blocks["fgsm"].attacks[0], blocks["square"].attacks
    assert fgsm.eps == 8 / 255 and fgsm.steps == 1 and not fgsm.random_start
    assert [type(a) for a in square] == [Square, Square] and [a.eps for a in square] == [0.1, 0.2]
    assert [a.eps for a in blocks["stadv"].attacks] == [0.05, 0.1]
    assert blocks["gowal"].attacks[0].decay.at == (0.5, 0.75)
    assert blocks["transfer"].source == "undefended"
    published, other = (blocks[name].attacks for name in ("diffattack", "diffattack-pgd"))
    assert [(a.eps, a.weight, a.attack) for a in published] == [
        (e, 0.5, rand()) for e in (0.1, 0.2)
    ]
    assert other[0].attack == PGD(steps=7)
    assert blocks["diffhammer"].attacks == [
        DiffHammer(norm=L2(), loss=DLR(), ahead=None, graft=False)
    ]


def test_a_missing_file_of_stored_images_is_one_line(tmp_path: Path) -> None:
    block = "    - {class_path: adpur.Robustness, init_args: {name: saved, attack: {class_path: adpur.Saved, init_args: {path: nowhere}}}}"
    with pytest.raises(ConfigError, match="expected a safetensors file or a folder of them"):
        parse("test", ["-c", config(tmp_path, block), "--trainer.logger=false"])


def test_an_attack_in_a_ball_takes_no_flow(tmp_path: Path) -> None:
    block = "    - {class_path: adpur.Robustness, init_args: {name: flow, attack: {class_path: adpur.PGD, init_args: {norm: adpur.Flow}}}}"
    with pytest.raises(ConfigError, match="norm"):
        parse("test", ["-c", config(tmp_path, block), "--trainer.logger=false"])
