"""adpur: train and evaluate diffusion-based adversarial purification.

Names load on first use (PEP 562), so that `adpur --help` needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "adpur.addt.cgpo": ["CGPO", "Misclassified", "Misdenoised", "addt_paper", "addt_released"],
    "adpur.addt.linf": ["ImagePGD", "LinfNoise"],
    "adpur.addt.mapping": [
        "RBGM", "Mapping", "RandomOrder", "Rescaled", "ReverseRBGM", "Standardised", "Unmapped",
    ],
    "adpur.addt.objective": ["DenoisingLoss", "EDMWeighted", "EpsMSE"],
    "adpur.addt.perturbation": ["Clean", "Perturbation", "Weight"],
    "adpur.api": ["evaluate"],
    "adpur.attacks.apgd": ["APGD"],
    "adpur.attacks.assuming": ["Assuming"],
    "adpur.attacks.attack": ["Attack", "LeastLikely", "NextClass", "Target"],
    "adpur.attacks.decay": ["CosineDecay", "Decay", "FixedStep", "StepwiseDecay"],
    "adpur.attacks.diffattack": ["DiffAttack"],
    "adpur.attacks.diffhammer": ["DiffHammer"],
    "adpur.attacks.fab": ["FAB"],
    "adpur.attacks.legacy": ["aa_fixed", "aa_legacy"],
    "adpur.attacks.onestep": ["OneStep"],
    "adpur.attacks.pgd": ["PGD", "fgsm"],
    "adpur.attacks.random": ["RandomNoise"],
    "adpur.attacks.saved": ["Saved"],
    "adpur.attacks.spsa": ["SPSA", "spsa_1280"],
    "adpur.attacks.square": ["Square"],
    "adpur.attacks.stadv": ["StAdv"],
    "adpur.attacks.sticky": ["StickyPGD"],
    "adpur.attacks.worst": ["Suited", "Worst", "rand", "standard"],
    "adpur.defense.defense": ["Defense", "Prediction"],
    "adpur.defense.ensemble": ["Ensemble", "Majority", "MeanLogits", "Single"],
    "adpur.defense.gradient": [
        "BPDA", "Budgeted", "Checkpointed", "Exact", "GradientMode", "Substitute", "Surrogate",
    ],
    "adpur.diffusion.adapters": [
        "ConsistencyDenoiser", "EDMDenoiser", "EpsDenoiser", "FlowDenoiser", "VDenoiser",
        "X0Denoiser",
    ],
    "adpur.diffusion.denoiser": ["Denoiser"],
    "adpur.diffusion.grid": [
        "Counted", "Even", "Grid", "Inclusive", "Karras", "OneShot", "Strided", "Subsequence",
    ],
    "adpur.diffusion.guidance": ["MSE", "SSIM", "Guidance", "ReleasedMSE", "ReleasedSSIM"],
    "adpur.diffusion.schedule": ["VE", "DiscreteVP", "LinearVP", "NoiseSchedule", "RectifiedFlow"],
    "adpur.diffusion.step": ["Corrected", "Ancestral", "EulerMaruyama", "Heun", "Step"],
    "adpur.errors": ["AttackError", "ConfigError"],
    "adpur.keyed.noise": ["Noise", "Source", "Stream"],
    "adpur.lit.data.cifar": ["Cifar10", "Cifar100"],
    "adpur.lit.data.cifar10_1": ["Cifar10_1"],
    "adpur.lit.data.cifar10c": ["Cifar10C"],
    "adpur.lit.data.digits": ["Digits"],
    "adpur.lit.data.folder": ["Folder"],
    "adpur.lit.data.given": ["Given"],
    "adpur.lit.data.imagenet": ["ImageNet"],
    "adpur.lit.data.imagenet_c": ["ImageNetC"],
    "adpur.lit.data.medmnist": ["MedMNIST"],
    "adpur.lit.data.parquet": ["Parquet"],
    "adpur.lit.data.subset": ["First", "Listed", "Random", "Stratified", "Subset"],
    "adpur.lit.data.svhn": ["SVHN"],
    "adpur.lit.data.tiny_imagenet": ["TinyImageNet"],
    "adpur.lit.fit.addt": ["ADDT"],
    "adpur.lit.fit.average": ["EMA"],
    "adpur.lit.fit.checkpoint": ["LastCheckpoint"],
    "adpur.lit.fit.classifier": ["ClassifierTraining"],
    "adpur.lit.fit.cost": ["Cost"],
    "adpur.lit.fit.diffusion": ["DiffusionTraining"],
    "adpur.lit.fit.frechet": ["FrechetDistance"],
    "adpur.lit.fit.muon": ["Muon"],
    "adpur.lit.fit.purified": ["PurifiedAccuracy"],
    "adpur.lit.fit.robust": ["RobustValidation"],
    "adpur.lit.fit.samples": ["SampleGrid"],
    "adpur.lit.fit.search": ["SearchFigures"],
    "adpur.lit.fit.training": ["Annealing"],
    "adpur.lit.test.evaluation": ["Evaluation"],
    "adpur.lit.test.figures": ["Gallery", "LevelHistograms"],
    "adpur.lit.test.protocol": ["StandardV1"],
    "adpur.lit.test.robustness": ["Robustness"],
    "adpur.lit.test.row": ["Row"],
    "adpur.models.checkpoints.published": ["cifar10_classifier"],
    "adpur.models.checkpoints.zoo": [
        "load_classifier", "load_denoiser", "pretrained", "save_classifier", "save_denoiser",
    ],
    "adpur.models.classifiers": ["CifarResNet", "Classifier"],
    "adpur.models.keyed": ["Keyed", "Seeded"],
    "adpur.models.lean": ["LeanUNet"],
    "adpur.models.ncsnpp": ["NCSNpp"],
    "adpur.models.networks": ["Networks"],
    "adpur.models.timm_nets": ["timm_classifier", "timm_networks"],
    "adpur.models.whitened": ["WhitenedConvNet"],
    "adpur.models.wideresnet": ["WideResNet"],
    "adpur.papers.revpure.theorem.replay": ["NoisyBall", "NoisyHalfSpace"],
    "adpur.purify.base": ["Identity", "Purified", "Purifier"],
    "adpur.purify.chain": ["Chain", "Resized"],
    "adpur.purify.diffusion": ["Diffusion"],
    "adpur.purify.levels.curve": ["Curve", "Flat", "Linear", "Sigmoid"],
    "adpur.purify.levels.level": [
        "Constant", "Jittered", "NoiseLevel", "Reweighted", "ScoreNorm", "calibrate",
    ],
    "adpur.purify.levels.reference": ["Reference", "reference"],
    "adpur.purify.presets": [
        "addt_ddim", "addt_ddpm", "ddim", "ddpm", "ddpm_schedule", "edm", "gdmp", "gdmp_released",
        "gns", "gns_surrogate", "one_shot", "revpure", "scoreopt_n", "scoreopt_n_released",
        "scoreopt_o", "scoreopt_o_released", "vp_sde", "vp_sde_released",
    ],
    "adpur.purify.scoreopt": ["SR", "Anchored", "Diff", "Objective", "ScoreOpt"],
    "adpur.purify.ssni": ["ssni", "ssni_l", "ssni_n", "ssni_released"],
    "adpur.threat.ball": ["L2", "Linf", "Norm", "Threat"],
    "adpur.threat.flow": ["Flow"],
    "adpur.threat.knowledge": [
        "Knowledge", "dw_both", "dw_forward", "dw_semi", "replay", "white_box",
    ],
    "adpur.threat.losses": ["DLR", "CrossEntropy", "Loss", "Margin"],
    "adpur.threat.oracle": ["LevelGradient", "Oracle"],
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'adpur' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
