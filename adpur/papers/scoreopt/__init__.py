"""Figures of ScoreOpt."""
