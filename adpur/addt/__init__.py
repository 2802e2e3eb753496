"""Adversarial Denoising Diffusion Training: its mathematics, without a trainer."""
