"""Schedulers by class: whose betas a network was trained on, or which class adpur cannot read."""

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from adpur import ConfigError, DiscreteVP, EpsDenoiser, LinearVP, RectifiedFlow, load_denoiser

UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": (4, 4), "down_block_types": ("DownBlock2D",) * 2,
    "up_block_types": ("UpBlock2D",) * 2, "norm_num_groups": 4, "add_attention": False,
}  # fmt: skip
ALL = sorted(
    name
    for name in dir(diffusers)
    if name.endswith("Scheduler") and isinstance(getattr(diffusers, name), type)
    and not getattr(getattr(diffusers, name), "_backends", None)
)  # fmt: skip
ELSEWHERE = {  # flow matching's, EDM's and consistency models'
    "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
    "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CMStochasticIterativeScheduler",
}  # fmt: skip
COGVIDEO = {"CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"}
"""They shift the signal-to-noise ratio of their betas."""


def arguments(name: str) -> Any:
    return inspect.signature(getattr(diffusers, name)).parameters


BETAS = [n for n in ALL if "beta_schedule" in arguments(n) and n not in COGVIDEO]
OTHERS = [n for n in ALL if n not in (*BETAS, *ELSEWHERE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("m")
    UNet2DModel(**UNET).save_pretrained(made)
    return made


def write(folder: Path, name: str | None, **config: Any) -> Path:
    named = {} if name is None else {"_class_name": name}
    (folder / "scheduler_config.json").write_text(json.dumps(named | config))
    return folder


def test_there_are_classes_of_every_kind() -> None:
    assert {"DDPMScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"} < set(BETAS)
    assert {"IPNDMScheduler", "DDPMWuerstchenScheduler", "SCMScheduler"} < set(OTHERS)
    assert len(BETAS) > 15 and len(OTHERS) > 8


@pytest.mark.parametrize("name", BETAS)
def test_what_is_left_out_is_the_default_of_its_own_class(name: str, folder: Path) -> None:
    found = load_denoiser(write(folder, name))
    want = getattr(diffusers, name)().betas.double()
    assert type(found) is EpsDenoiser and found.schedule.end == len(want)
    assert torch.allclose(torch.tensor(found.schedule.betas), want.float(), atol=1e-7)
    found = load_denoiser(write(folder, name, num_train_timesteps=70))
    assert found.schedule.end == 70


@pytest.mark.parametrize("name", BETAS)
def test_a_config_as_saved_with_all_its_nulls(name: str, folder: Path) -> None:
    own = {} if name == "UnCLIPScheduler" else {"beta_start": 2e-4, "beta_end": 0.011}
    made = getattr(diffusers, name)(num_train_timesteps=50, **own)
    made.save_config(folder)
    found = load_denoiser(folder).schedule.betas
    assert torch.allclose(torch.tensor(found), made.betas, atol=1e-7)


@pytest.mark.parametrize(
    "sampling",
    [
        {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"sigma_max": 80.0},
        {"sigma_min": 0.1, "final_sigmas_type": "sigma_min"}, {"timestep_spacing": "trailing"},
        {"steps_offset": 1}, {"interpolation_type": "log_linear"},
    ],
    ids=repr,
)  # fmt: skip
def test_options_of_a_sampler_do_not_concern_the_network(sampling: dict, folder: Path) -> None:
    assert (
        load_denoiser(write(folder, "EulerDiscreteScheduler", **sampling)).schedule == DiscreteVP()
    )


@pytest.mark.parametrize("name", [*OTHERS, "KarrasVeScheduler", "NothingScheduler", "utils", "VE"])
def test_every_other_class_is_refused_by_name(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler_config\.json: .*'{name}'"):
        load_denoiser(write(folder, name, num_train_timesteps=1000))


def test_a_class_is_never_guessed(folder: Path) -> None:
    for name in (None, 5, ["DDPMScheduler"]):
        with pytest.raises(ConfigError, match="expected _class_name, the scheduler's class"):
            load_denoiser(write(folder, name))  # type: ignore[arg-type]


def test_continuous_labels_of_an_euler_sampler_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="timestep_type 'discrete', found 'continuous'"):
        load_denoiser(write(folder, "EulerDiscreteScheduler", timestep_type="continuous"))


def test_adpurs_own_continuous_schedule_is_no_linear_betas(folder: Path) -> None:
    assert load_denoiser(write(folder, "LinearVP", beta_max=12.0)).schedule == LinearVP(0.1, 12.0)


def test_flow_sigmas_are_flow_matchings_whatever_samples(folder: Path) -> None:
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    found = load_denoiser(write(folder, "UniPCMultistepScheduler", num_train_timesteps=500, **flow))
    assert found.schedule == RectifiedFlow(500)
    with pytest.raises(ConfigError, match="'flow_prediction' on flow sigmas"):
        load_denoiser(write(folder, "UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="v_prediction"))  # fmt: skip
    with pytest.raises(ConfigError, match="found invert_sigmas"):
        load_denoiser(write(folder, "FlowMatchEulerDiscreteScheduler", invert_sigmas=True))


def test_given_betas_are_kept(folder: Path) -> None:
    given = [0.1, 0.2, 0.3]
    assert load_denoiser(write(folder, "PNDMScheduler", trained_betas=given)).schedule.betas == tuple(given)  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        {"num_train_timesteps": "many"}, {"num_train_timesteps": 0}, {"num_train_timesteps": -5},
        {"num_train_timesteps": 10**12}, {"num_train_timesteps": 2.5}, {"num_train_timesteps": True},
        {"beta_start": "x"}, {"beta_start": -0.1}, {"beta_end": 3.0}, {"beta_end": [1]},
        {"beta_schedule": "zigzag"}, {"beta_schedule": 5}, {"beta_schedule": []},
        {"trained_betas": "x"}, {"trained_betas": []}, {"trained_betas": [0.1, "x"]},
        {"trained_betas": [[0.1]]}, {"trained_betas": {"a": 1}}, {"trained_betas": [2.0]},
        {"beta_schedule": "scaled_linear", "beta_start": "x"},
        {"rescale_betas_zero_snr": True, "beta_start": "x"}, {"prediction_type": 5},
        {"prediction_type": ["epsilon"]},
    ],
    ids=repr,
)  # fmt: skip
def test_values_of_a_wrong_kind_are_one_line(odd: dict, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"scheduler_config\.json: ") as told:
        load_denoiser(write(folder, "DDIMScheduler", **odd))
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def test_older_ends_and_rescaled_betas_keep_their_values(folder: Path) -> None:
    for config in ({"beta_schedule": "scaled_linear"}, {"rescale_betas_zero_snr": True},
                   {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 40},
                   {"beta_schedule": "sigmoid"}):  # fmt: skip
        found = load_denoiser(write(folder, "DDPMScheduler", **config)).schedule.betas
        assert found == tuple(DDPMScheduler(**config).betas.double().tolist())
