"""The diffusion model: schedules, denoisers, grids, steps, the reverse loop."""
